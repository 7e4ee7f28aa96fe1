// All layers of a decoder for the newest token of few rows, with a cache of keys and values.
//
// `DecoderStep` is a function for MindSpore's operator `Custom` (func_type "aot"). Some 40 operators a layer instead
// take 13 ms a token beside their work, this takes 2: the operators cost up to 12 us each, and threads that are woken
// for each product share the cores with MindSpore's, which ask for work without pause (docs/performance.md). All
// numbers are float32 where nothing else is said.

#include <omp.h>

#include <algorithm>
#include <cmath>
#include <exception>
#include <limits>
#include <memory>

#include "few_rows.h"
#include "lanes.h"

namespace ms_medqa {
namespace {

// A layer of fewer numbers is not worth a second thread: seven times in each, all threads wait for the last. One row of
// a model of 6 million parameters takes 0.67 ms instead of 0.85, and 32 rows 4.7 instead of 3.3; but where the clients
// of a server are at work on the same two cores as well, all of them together get no fewer tokens, or more.
constexpr int64_t kAlone = 1000000;

// Numbers in a line of the cache.
constexpr int64_t kLine = 16;

// A mask hides a slot with a number below this, and none of its score is left (`MASKED` in models/mask.py).
constexpr float kUnseen = -1e29f;

// The arguments that come first. The others stand where `places` says.
enum Argument {
  kPlaces,   // int32 (layers, kPlacesOfLayer): for each layer and each `Place` the number of an argument, -1 for none
  kEpsilon,  // (1,), of the norms
  kX,        // (rows, hidden)
  kSlots,    // int32 (rows * kv_heads,), where keys and values of the new tokens go
};
enum Place {
  kMask,        // (rows, kv_heads or 1, group or 1, T), added to the scores
  kKeys,        // (rows * kv_heads * T, width)
  kValues,      // the same
  kQueryCos,    // (rows, heads * width)
  kQuerySin,    // the same
  kKeyCos,      // (rows, kv_heads * width)
  kKeySin,      // the same
  kFirstNorm,   // (hidden)
  kSecondNorm,  // (hidden)
  kQueryNorm,   // (width)
  kKeyNorm,     // (width)
  kQuery,       // (heads * width, hidden); the next place is that of a bias, as for those that follow
  kKey = kQuery + 2,
  kValue = kQuery + 4,
  kOut = kQuery + 6,
  kGate = kQuery + 8,
  kUp = kQuery + 10,
  kDown = kQuery + 12,
  kPlacesOfLayer = kQuery + 14,
};

class Arguments {
 public:
  Arguments(void **params, int64_t **shapes) : params_(params), shapes_(shapes) {}

  template <typename Number>
  Number *at(int number) const {
    return static_cast<Number *>(params_[number]);
  }
  const int64_t *shape(int number) const { return shapes_[number]; }
  int place(int64_t layer, int which) const { return at<const int32_t>(kPlaces)[layer * shapes_[kPlaces][1] + which]; }
  const float *find(int64_t layer, int which) const {
    const int number = place(layer, which);
    return number < 0 ? nullptr : at<const float>(number);
  }
  Linear linear(int64_t layer, int which) const {
    const int64_t *shape = shapes_[place(layer, which)];
    return {find(layer, which), find(layer, which + 1), shape[0], shape[1]};
  }

 private:
  void **const params_;
  int64_t **const shapes_;
};

// y = x / sqrt(mean(x^2) + epsilon) * weight (Zhang & Sennrich 2019, eq. 4); y may be x.
template <typename V>
INLINE void norm(const float *x, const float *weight, float *y, int64_t size, float epsilon) {
  using Lanes = typename V::Lanes;
  constexpr int64_t kLanes = V::kLanes;
  Lanes squares{};
  for (int64_t at = 0; at < size; at += kLanes) {
    const Lanes lanes = load<V>(x + at, least(kLanes, size - at));
    squares += lanes * lanes;
  }
  const float factor = 1.0f / std::sqrt(total(squares) / size + epsilon);
  for (int64_t at = 0; at < size; ++at) y[at] = x[at] * factor * weight[at];
}

FOR_THIS_PROCESSOR(norm, (const float *x, const float *weight, float *y, int64_t size, float epsilon),
                   (x, weight, y, size, epsilon))

// Rotary positions of a head, in place: x cos + turned(x) sin, where turned(x) is (-second half, first half).
void turn(float *x, const float *cos, const float *sin, int64_t width) {
  const int64_t half = width / 2;
  for (int64_t at = 0; at < half; ++at) {
    const float first = x[at], second = x[at + half];
    x[at] = first * cos[at] - second * sin[at];
    x[at + half] = second * cos[at + half] + first * sin[at + half];
  }
}

// softmax(scores * scale + mask), in place.
template <typename V>
INLINE void softmax(float *scores, const float *mask, int64_t length, float scale) {
  using Lanes = typename V::Lanes;
  constexpr int64_t kLanes = V::kLanes;
  constexpr float kNone = -std::numeric_limits<float>::infinity();
  Lanes most = Lanes{} + kNone;
  for (int64_t t = 0; t < length; t += kLanes) {
    const int64_t some = least(kLanes, length - t);
    const Lanes lanes = load<V>(scores + t, some) * scale + load<V>(mask + t, some, kNone);
    most = lanes > most ? lanes : most;
    store<V>(scores + t, lanes, some);
  }
  float top = most[0];
  for (int64_t lane = 1; lane < kLanes; ++lane) top = std::max(top, most[lane]);
  Lanes sums{};
  for (int64_t t = 0; t < length; t += kLanes) {
    const int64_t some = least(kLanes, length - t);
    const Lanes lanes = exponential<V>(load<V>(scores + t, some, kNone) - top);
    sums += lanes;
    store<V>(scores + t, lanes, some);
  }
  const float factor = 1.0f / total(sums);
  for (int64_t t = 0; t < length; ++t) scores[t] *= factor;
}

// Shares of values, (length), (length, width) -> (width).
template <typename V>
INLINE void mix(const float *shares, const float *values, float *y, int64_t length, int64_t width) {
  using Lanes = typename V::Lanes;
  constexpr int64_t kLanes = V::kLanes;
  int64_t at = 0;
  // Two at a time, so that an addition does not wait for the one before.
  for (; at + 2 * kLanes <= width; at += 2 * kLanes) {
    Lanes sums{}, more{};
    for (int64_t t = 0; t < length; ++t) {
      sums += shares[t] * load<V>(values + t * width + at);
      more += shares[t] * load<V>(values + t * width + at + kLanes);
    }
    store<V>(y + at, sums);
    store<V>(y + at + kLanes, more);
  }
  for (; at < width; at += kLanes) {
    const int64_t some = least(kLanes, width - at);
    Lanes sums{};
    for (int64_t t = 0; t < length; ++t) sums += shares[t] * load<V>(values + t * width + at, some);
    store<V>(y + at, sums, some);
  }
}

// A query whose scores are there.
template <typename V>
INLINE void attend(float *scores, const float *mask, const float *values, float *y, int64_t length, int64_t width) {
  softmax<V>(scores, mask, length, 1.0f / std::sqrt(static_cast<float>(width)));
  mix<V>(scores, values, y, length, width);
}

FOR_THIS_PROCESSOR(attend,
                   (float *scores, const float *mask, const float *values, float *y, int64_t length, int64_t width),
                   (scores, mask, values, y, length, width))

// The sizes that all layers have, and room for what lies between their products.
struct Sizes {
  explicit Sizes(const Arguments &arguments)
      : rows(arguments.shape(kX)[0]),
        hidden(arguments.shape(kX)[1]),
        width(arguments.shape(arguments.place(0, kKeys))[1]),
        heads(arguments.linear(0, kQuery).n / width),
        kv_heads(arguments.linear(0, kKey).n / width),
        inner(arguments.linear(0, kGate).n),
        length(arguments.shape(arguments.place(0, kMask))[3]),
        of_thread(kLine + std::max(gated_scratch(arguments.linear(0, kGate), rows), heads / kv_heads * length)),
        epsilon(*arguments.at<const float>(kEpsilon)) {}

  // Numbers in the matrices of a layer.
  int64_t weights() const { return hidden * (2 * (heads + kv_heads) * width + 3 * inner); }

  const int64_t rows, hidden, width, heads, kv_heads, inner, length;
  // Numbers of scratch that each thread needs, with a line of the cache between it and the next.
  const int64_t of_thread;
  const float epsilon;
};

struct Scratch {
  Scratch(const Sizes &sizes, int threads)
      : numbers(new float[sizes.rows * (2 * sizes.hidden + 2 * (sizes.heads + sizes.kv_heads) * sizes.width +
                                        sizes.inner) +
                          threads * sizes.of_thread]),
        normed(numbers.get()),
        between(normed + sizes.rows * sizes.hidden),
        queries(between + sizes.rows * sizes.hidden),
        attended(queries + sizes.rows * sizes.heads * sizes.width),
        keys(attended + sizes.rows * sizes.heads * sizes.width),
        values(keys + sizes.rows * sizes.kv_heads * sizes.width),
        inner(values + sizes.rows * sizes.kv_heads * sizes.width),
        of_threads(inner + sizes.rows * sizes.inner) {}

  std::unique_ptr<float[]> numbers;
  float *const normed, *const between, *const queries, *const attended, *const keys, *const values, *const inner;
  float *const of_threads;
};

// A layer, for one of the threads that share its work.
class Layer {
 public:
  Layer(const Arguments &arguments, int64_t number, const Sizes &sizes, const Scratch &scratch)
      : given_(arguments),
        number_(number),
        sizes_(sizes),
        scratch_(scratch),
        own_(scratch.of_threads + omp_get_thread_num() * sizes.of_thread) {}

  // x (rows, hidden) -> y, which may be x.
  void run(const float *x, float *y) const {
    const int64_t rows = sizes_.rows;
    norm_rows(x, kFirstNorm);
    product(linear(kQuery), scratch_.normed, nullptr, scratch_.queries, rows);
    product(linear(kKey), scratch_.normed, nullptr, scratch_.keys, rows);
    product(linear(kValue), scratch_.normed, nullptr, scratch_.values, rows);
#pragma omp barrier
#pragma omp for schedule(dynamic)
    for (int64_t head = 0; head < rows * sizes_.kv_heads; ++head) attention(head);
    product(linear(kOut), scratch_.attended, x, scratch_.between, rows);
#pragma omp barrier
    norm_rows(scratch_.between, kSecondNorm);
    gated_product(linear(kGate), linear(kUp), scratch_.normed, scratch_.inner, rows, own_);
#pragma omp barrier
    product(linear(kDown), scratch_.inner, scratch_.between, y, rows);
#pragma omp barrier
  }

 private:
  const float *find(Place place) const { return given_.find(number_, place); }
  Linear linear(Place place) const { return given_.linear(number_, place); }

  void norm_rows(const float *x, Place weight) const {
    const int64_t hidden = sizes_.hidden;
#pragma omp for
    for (int64_t at = 0; at < sizes_.rows * hidden; at += hidden) {
      best_norm(x + at, find(weight), scratch_.normed + at, hidden, sizes_.epsilon);
    }
  }

  // A head of keys and values of one row, and the queries that share it.
  void attention(int64_t head) const {
    const int64_t width = sizes_.width, length = sizes_.length, group = sizes_.heads / sizes_.kv_heads;
    float *queries = scratch_.queries + head * group * width, *key = scratch_.keys + head * width;
    for (int64_t at = 0; at < group * width; at += width) {
      place_head(queries + at, kQueryNorm, kQueryCos, kQuerySin, head * group * width + at);
    }
    place_head(key, kKeyNorm, kKeyCos, kKeySin, head * width);
    float *keys = given_.at<float>(given_.place(number_, kKeys));
    float *values = given_.at<float>(given_.place(number_, kValues));
    const int64_t slot = given_.at<const int32_t>(kSlots)[head];
    std::copy_n(key, width, keys + slot * width);
    std::copy_n(scratch_.values + head * width, width, values + slot * width);

    const int64_t *mask_shape = given_.shape(given_.place(number_, kMask));
    const int64_t mask_head = mask_shape[1] == 1 ? 0 : head % sizes_.kv_heads;
    const float *mask = find(kMask) + (head / sizes_.kv_heads * mask_shape[1] + mask_head) * mask_shape[2] * length;
    // What is masked at either end for one query of the group is so for all.
    int64_t first = 0, end = length;
    while (end > 1 && mask[end - 1] < kUnseen) --end;
    while (first < end - 1 && mask[first] < kUnseen) ++first;
    const int64_t seen = end - first, at = (head * length + first) * width;
    best_piece(queries, keys + at, own_, group, seen, seen, width);
    for (int64_t g = 0; g < group; ++g) {
      best_attend(own_ + g * seen, mask + (mask_shape[2] == 1 ? 0 : g * length) + first, values + at,
                  scratch_.attended + (head * group + g) * width, seen, width);
    }
  }

  // Norm and position of a head, as far as the layer has these; its cosines and sines begin at `at`.
  void place_head(float *x, Place weight, Place cos, Place sin, int64_t at) const {
    if (find(weight) != nullptr) best_norm(x, find(weight), x, sizes_.width, sizes_.epsilon);
    if (find(cos) != nullptr) turn(x, find(cos) + at, find(sin) + at, sizes_.width);
  }

  const Arguments &given_;
  const int64_t number_;
  const Sizes &sizes_;
  const Scratch &scratch_;
  float *const own_;
};

}  // namespace
}  // namespace ms_medqa

// See `Argument` and `Place` -> what the layers make of x, (rows, hidden). Writes to the caches. Returns 1 where a slot
// is none of its row and head, with nothing written, 2 without memory, and 3 for places that another version has made.
extern "C" int DecoderStep(int count, void **params, int *, int64_t **shapes, const char **, void *, void *) {
  using namespace ms_medqa;
  if (shapes[kPlaces][1] != kPlacesOfLayer) return 3;
  try {
    const Arguments arguments(params, shapes);
    const Sizes sizes(arguments);
    for (int64_t head = 0; head < sizes.rows * sizes.kv_heads; ++head) {
      const int64_t slot = arguments.at<const int32_t>(kSlots)[head];
      if (slot < head * sizes.length || slot >= (head + 1) * sizes.length) return 1;
    }
    const int many = threads();
    const Scratch scratch(sizes, many);
    float *y = static_cast<float *>(params[count - 1]);
#pragma omp parallel num_threads(many) if (sizes.weights() > kAlone)
    for (int64_t layer = 0; layer < shapes[kPlaces][0]; ++layer) {
      Layer(arguments, layer, sizes, scratch).run(layer == 0 ? arguments.at<const float>(kX) : y, y);
    }
  } catch (const std::exception &) {
    return 2;
  }
  return 0;
}
