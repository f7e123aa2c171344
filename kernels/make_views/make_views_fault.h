// The check of the parameters of the views. Callers run it on the host, before make_views.
#pragma once

#include <string>

#include "make_views.h"

namespace lowlevel_simclr {

// Returns a sentence about the first row with invalid parameters, or an empty string if all rows are valid. A row is
// invalid if its box is empty or not inside the image. It is also invalid if it needs 3 channels (grey, saturation,
// hue) but the images have another number of them.
std::string make_views_fault(const MakeViewsShape& shape, const ViewParamArrays& params);

}  // namespace lowlevel_simclr
