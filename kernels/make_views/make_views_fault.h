// Why parameters cannot become views; asked on the host before make_views.
#pragma once

#include <string>

#include "make_views.h"

namespace lowlevel_simclr {

// A sentence about the first row whose box is empty or not inside the image, or that changes colours of images
// without 3 channels; empty where there is none.
std::string make_views_fault(const MakeViewsShape& shape, const ViewParamArrays& params);

}  // namespace lowlevel_simclr
