// Scales an image down or up, to exactly the bytes of Pillow's `Image.resize` in bilinear mode.
//
// Formula. Each axis has a filter: a triangle as wide as two source pixels, or as two target pixels if the image
// becomes smaller. The filter runs along the rows first, then down the columns. The weights of a target pixel are
// computed in double, normalized to a sum of 1, and rounded to multiples of 2^-22. Sums of weighted bytes are int32.
// After each axis the sum is rounded to a byte. So all sums are exact, and the result is the same with every
// instruction set.
//
// Pillow's file Resample.c defines the arithmetic. tests/data/test_resize_pixels.py compares every byte with Pillow's.
#pragma once

#include <stdint.h>

namespace lowlevel_simclr {

struct ResizeBox {
  float left, top, right, bottom;  // in source pixels; they need not be whole
};

// Scales the part `box` of `source` to `target`. Several threads may call it at the same time.
//
// source: (height, width, channels) bytes. channels is 1 or 3.
// target: (new_height, new_width, channels) bytes, which do not overlap the source.
//
// Returns false if there is no memory for the intermediate image, which is filtered along the rows only.
bool resize_pixels(const uint8_t* source, int64_t height, int64_t width, int64_t channels, ResizeBox box,
                   uint8_t* target, int64_t new_height, int64_t new_width);

}  // namespace lowlevel_simclr
