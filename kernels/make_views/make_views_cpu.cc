// Views on the CPU: the memory, the weights of the crop, and which thread makes which view. The computation of the
// pixels is in make_views_tiles.cc.
//
// Both views of an image are made by the same thread, one after the other, so that the image is still in its core's
// cache. A thread that is ready takes the next image from a counter that all threads share. A view does not depend on
// the thread that makes it.
#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <string>

#include "../runtime/instruction_set.h"
#include "../runtime/rounding.h"
#include "../runtime/workspace.h"
#include "make_views.h"
#include "make_views_fault.h"
#include "make_views_tiles.h"

namespace lowlevel_simclr {
namespace {

// ---- Constants

constexpr int64_t kMostWorkers = 256;
// If all views together have more bytes than this, they are stored directly to memory, past the caches. In the caches,
// they would be replaced before anything reads them.
constexpr int64_t kStreamed = 4 << 20;
// If all views together have fewer pixels than this, waking a second thread takes more time than the thread saves.
constexpr int64_t kPixelsOfOneThread = 16384;

const MakeViewsTiles& tiles() { LOWLEVEL_SIMCLR_RETURN_TILES(make_views_tiles); }

double full_scale(PixelType type) {
  return type == PixelType::kUint8 ? 255.0 : type == PixelType::kUint16 ? 65535.0 : 1.0;
}

int64_t size_of(PixelType type) { return type == PixelType::kUint8 ? 1 : type == PixelType::kUint16 ? 2 : 4; }
int64_t size_of(DataType type) { return type == DataType::kFloat32 ? 4 : 2; }

// ---- Memory

// Returns how many taps (box pixels with a weight) one view pixel has at most. The weights form a triangle, which
// reaches max(length / S, 1) box pixels to each side.
int64_t most_taps(int64_t length, int64_t size) {
  return std::min(length, divide_up(2 * std::max(length, size), size));
}

// The sizes that follow from the shape, and the places of the arrays in the workspace. The workspace holds the vectors
// for the scaling, then the scratch memory of each worker (thread).
struct Plan {
  const MakeViewsTiles& tiles;
  MakeViewsShape shape;
  int64_t workers, padded_size, row_length, radius, bytes_of_worker, bytes;
  float *mean, *inverse_std;
  char* of_workers;

  Plan(const ParallelFor& parallel, const MakeViewsShape& s, void* workspace)
      : tiles(lowlevel_simclr::tiles()), shape(s) {
    const int64_t pixels = 2 * s.count * s.size * s.size;
    workers = pixels < kPixelsOfOneThread
                  ? 1
                  : std::min({parallel.threads, std::max<int64_t>(s.count, 1), kMostWorkers});
    padded_size = round_up(s.size, tiles.lanes);
    row_length = round_up(s.size * s.channels, kRowPadding);
    radius = s.size / 10 / 2;  // half of the taps, S / 10 rounded up to an odd number
    cut_scratch(nullptr, &bytes_of_worker);
    Workspace<kHostAlignment> memory(workspace);
    mean = memory.take<float>(row_length);
    inverse_std = memory.take<float>(row_length);
    of_workers = memory.take<char>(workers * bytes_of_worker);
    bytes = memory.bytes();
  }

  bool streamed() const {
    return 2 * shape.count * shape.size * shape.size * shape.channels * size_of(shape.type) > kStreamed;
  }

  ViewScratch scratch(int64_t worker) const {
    int64_t used;
    return cut_scratch(of_workers + worker * bytes_of_worker, &used);
  }

  ViewScratch cut_scratch(char* base, int64_t* used) const {
    Workspace<kHostAlignment> memory(base);
    const auto take_taps = [&](int64_t length) {
      int32_t* first = memory.take<int32_t>(shape.size);
      return Taps{0, first, memory.take<float>(shape.size * most_taps(length, shape.size))};
    };
    ViewScratch scratch{};
    scratch.down = take_taps(shape.height);
    scratch.across = take_taps(shape.width);
    scratch.lines = memory.take<float>(round_up(shape.width * shape.channels, tiles.lanes) * tiles.lanes);
    scratch.pixels = memory.take<float>(row_length * padded_size);
    scratch.blurred = radius > 0 ? memory.take<float>(row_length * padded_size) : nullptr;
    scratch.line = memory.take<float>(padded_size + 2 * radius);
    scratch.gaussian = memory.take<float>(radius + 1);
    *used = memory.bytes();
    return scratch;
  }
};

// ---- Weights of the crop

// Computes the taps of one direction. Positions are counted in units of 1 / (2 S) of a box pixel. In these units all
// weights are integers, so they are exact.
void make_taps(int64_t length, int64_t size, double scale, Taps* taps) {
  const int64_t reach = 2 * std::max(length, size), count = most_taps(length, size), last = length - count;
  const double enlarged =
      scale / static_cast<double>(2 * size);  // the weights of the two neighbours sum to 2 S
  taps->count = count;
  for (int64_t i = 0, first = 0, centre = length; i < size; ++i, centre += 2 * length) {
    while (first < last && (2 * first + 1) * size <= centre - reach) ++first;
    int64_t sum = 0,
            position = (2 * first + 1) * size - centre;  // the first box pixel, measured from the centre
    for (int64_t t = 0; t < count; ++t)
      sum += std::max<int64_t>(0, reach - std::abs(position + 2 * t * size));
    const double factor = sum == 2 * size ? enlarged : scale / static_cast<double>(sum);
    for (int64_t t = 0; t < count; ++t) {
      const int64_t triangle = std::max<int64_t>(0, reach - std::abs(position + 2 * t * size));
      taps->weight[i * count + t] = static_cast<float>(static_cast<double>(triangle) * factor);
    }
    taps->first[i] = static_cast<int32_t>(first);
  }
}

// ---- One view

View view_of(const ViewParamArrays& params, int64_t row) {
  const int32_t *box = params.box + 4 * row, *order = params.order + 4 * row;
  View view{};
  view.y = box[0], view.x = box[1], view.height = box[2], view.width = box[3];
  view.flip = params.flip[row], view.clip = params.clip[row], view.grey = params.grey[row];
  view.brightness = params.brightness[row], view.brightness_shift = params.brightness_shift[row];
  view.contrast = params.contrast[row], view.saturation = params.saturation[row];
  view.hue = params.hue[row], view.blur_sigma = params.blur_sigma[row];
  std::copy(order, order + 4, view.order);
  return view;
}

void one_view(const ViewCall& call, const Plan& plan, const void* images, const ViewParamArrays& params,
              int64_t row, ViewScratch& scratch, void* views) {
  const MakeViewsShape& shape = plan.shape;
  const View view = view_of(params, row);
  make_taps(view.height, shape.size, 1 / full_scale(shape.pixels), &scratch.down);
  make_taps(view.width, shape.size, 1, &scratch.across);
  const int64_t image_bytes = shape.height * shape.width * shape.channels * size_of(shape.pixels);
  const int64_t view_bytes = shape.size * shape.size * shape.channels * size_of(shape.type);
  const char* image = static_cast<const char*>(images) + row % shape.count * image_bytes;
  plan.tiles.make_view(call, image, view, scratch, static_cast<char*>(views) + row * view_bytes);
}

std::string number(int64_t value) { return std::to_string(value); }

}  // namespace

// ---- Launcher

int64_t make_views_workspace_bytes(const ParallelFor& parallel, const MakeViewsShape& shape) {
  return Plan(parallel, shape, nullptr).bytes;
}

void make_views(const ParallelFor& parallel, const MakeViewsShape& shape, const void* images,
                const ViewParamArrays& params, const float* mean, const float* inverse_std, void* workspace,
                void* views) {
  const Plan plan(parallel, shape, workspace);
  for (int64_t k = 0; k < plan.row_length; ++k) {
    plan.mean[k] = mean[k % shape.channels];
    plan.inverse_std[k] = inverse_std[k % shape.channels];
  }
  const ViewCall call{&plan.shape,     plan.padded_size, plan.radius,
                      plan.streamed(), plan.mean,        plan.inverse_std};
  std::atomic<int64_t> next{0};
  auto work = [&](int64_t worker) {
    ViewScratch scratch = plan.scratch(worker);
    for (int64_t image; (image = next.fetch_add(1)) < shape.count;) {
      one_view(call, plan, images, params, image, scratch, views);
      one_view(call, plan, images, params, image + shape.count, scratch, views);
    }
  };
  run_parallel(parallel, plan.workers, work);
}

std::string make_views_fault(const MakeViewsShape& shape, const ViewParamArrays& params) {
  for (int64_t row = 0; row < 2 * shape.count; ++row) {
    const int32_t* box = params.box + 4 * row;
    const int64_t y = box[0], x = box[1], h = box[2], w = box[3];
    if (y < 0 || x < 0 || h < 1 || w < 1 || y + h > shape.height || x + w > shape.width) {
      return "Row " + number(row) + " has the box (y, x, height, width) = (" + number(y) + ", " + number(x) +
             ", " + number(h) + ", " + number(w) + "). It must hold a pixel and lie inside the image of " +
             number(shape.height) + " x " + number(shape.width) + " pixels.";
    }
  }
  for (int64_t row = 0; row < 2 * shape.count && shape.channels != 3; ++row) {
    if (params.saturation[row] == 1 && params.hue[row] == 0 && !params.grey[row]) continue;
    return "Row " + number(row) + " is grey or changes saturation or hue, but the images have " +
           number(shape.channels) +
           " channels, not 3. Set grey_probability to 0, and set jitter_probability to 0 or saturation to 1 "
           "and hue to 0.";
  }
  return "";
}

}  // namespace lowlevel_simclr
