// The check of the views' parameters. On the host, callers run it before make_views.
#pragma once

#include <string>

#include "make_views.h"

namespace lowlevel_simclr {

// A sentence about the first row whose box is empty or not inside the image, or which changes colours of images that
// do not have 3 channels. Empty if there is no such row.
std::string make_views_fault(const MakeViewsShape& shape, const ViewParamArrays& params);

}  // namespace lowlevel_simclr
