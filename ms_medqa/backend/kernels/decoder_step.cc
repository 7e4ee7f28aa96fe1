// All layers of a decoder for few tokens, with a cache of keys and values: the newest of each row, or some of prompts.
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
#include <vector>

#include "few_rows.h"
#include "lanes.h"

namespace ms_medqa {
namespace {

// With small matrices, a layer of fewer multiplications is not worth a second thread: seven times in each, all threads
// wait for the last. One token of a model of 6 million parameters takes 0.67 ms instead of 0.85.
constexpr int64_t kAlone = 8000000;

// Matrices of fewer numbers come from a cache, and each thread takes tokens of its own through all layers. So no thread
// waits for another, which may have to share its core: 64 clients of a server on two cores get 8 % more tokens.
// (`SMALL_LAYER` in models/step_kernel.py.)
constexpr int64_t kSmall = 1000000;
constexpr int64_t kLeastTokens = 8;

// Numbers in a line of the cache.
constexpr int64_t kLine = 16;

// A mask hides a slot with a number below this, and none of its score is left (`MASKED` in models/mask.py).
constexpr float kUnseen = -1e29f;

// The arguments that come first. The others stand where `places` says.
enum Argument {
  kPlaces,   // int32 (layers, kPlacesOfLayer): for each layer and each `Place` the number of an argument, -1 for none
  kEpsilon,  // (1,), of the norms
  kX,        // (tokens, hidden)
  kSlots,    // int32 (tokens * kv_heads,), where keys and values of the tokens go; below 0 for those behind the last
};
enum Place {
  kMask,        // (tokens, kv_heads or 1, group or 1, T), added to the scores
  kKeys,        // (rows * kv_heads * T, width)
  kValues,      // the same
  kQueryCos,    // (tokens, heads * width)
  kQuerySin,    // the same
  kKeyCos,      // (tokens, kv_heads * width)
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
      : tokens(used(arguments)),
        hidden(arguments.shape(kX)[1]),
        width(arguments.shape(arguments.place(0, kKeys))[1]),
        heads(arguments.linear(0, kQuery).n / width),
        kv_heads(arguments.linear(0, kKey).n / width),
        inner(arguments.linear(0, kGate).n),
        length(arguments.shape(arguments.place(0, kMask))[3]),
        epsilon(*arguments.at<const float>(kEpsilon)) {}

  // How many tokens there are, before those that are none.
  static int64_t used(const Arguments &arguments) {
    const int64_t heads = arguments.shape(kSlots)[0] / arguments.shape(kX)[0];
    const int32_t *slots = arguments.at<const int32_t>(kSlots);
    int64_t tokens = 0;
    while (tokens < arguments.shape(kX)[0] && slots[tokens * heads] >= 0) ++tokens;
    return tokens;
  }

  // Numbers in the matrices of a layer.
  int64_t weights() const { return hidden * (2 * (heads + kv_heads) * width + 3 * inner); }

  const int64_t tokens, hidden, width, heads, kv_heads, inner, length;
  const float epsilon;
};

// Tokens that go through the layers together.
struct Part {
  int64_t first, tokens;
};

// The tokens in as many parts as there are threads, or in one on which all threads work together. Those of one row stay
// together, for they see each other.
std::vector<Part> parts(const Arguments &arguments, const Sizes &sizes, int threads) {
  const std::vector<Part> one{{0, sizes.tokens}};
  const int64_t many = std::min<int64_t>(threads, sizes.tokens / kLeastTokens);
  if (many < 2 || sizes.weights() > kSmall) return one;
  const int32_t *slots = arguments.at<const int32_t>(kSlots);
  const auto row = [&](int64_t token) { return slots[token * sizes.kv_heads] / sizes.length; };
  std::vector<Part> found;
  int64_t first = 0, before = 0;
  for (int64_t end = 1; end <= sizes.tokens; ++end) {
    if (end < sizes.tokens && row(end) == row(end - 1)) continue;
    // A part ends with the row that ends nearest to where it should.
    const int64_t wanted = sizes.tokens * (found.size() + 1) / many;
    if (end >= wanted) {
      const int64_t nearest = before > first && wanted - before < end - wanted ? before : end;
      found.push_back({first, nearest - first});
      first = nearest;
    }
    before = end;
  }
  if (first < sizes.tokens) found.push_back({first, sizes.tokens - first});
  // A long prompt is shared better among all.
  for (const Part &part : found) {
    if (2 * part.tokens * many > 3 * sizes.tokens) return one;
  }
  return found;
}

struct Scratch {
  Scratch(const Arguments &arguments, const Sizes &sizes, int64_t tokens, int threads)
      : of_thread(kLine + std::max(gated_scratch(arguments.linear(0, kGate), tokens),
                                   sizes.heads / sizes.kv_heads * sizes.length)),
        numbers(new float[tokens * (2 * sizes.hidden + 2 * (sizes.heads + sizes.kv_heads) * sizes.width + sizes.inner) +
                          threads * of_thread]),
        normed(numbers.get()),
        between(normed + tokens * sizes.hidden),
        queries(between + tokens * sizes.hidden),
        attended(queries + tokens * sizes.heads * sizes.width),
        keys(attended + tokens * sizes.heads * sizes.width),
        values(keys + tokens * sizes.kv_heads * sizes.width),
        inner(values + tokens * sizes.kv_heads * sizes.width),
        of_threads(inner + tokens * sizes.inner) {}

  // Numbers that each thread needs by itself, with a line of the cache between it and the next.
  const int64_t of_thread;
  std::unique_ptr<float[]> numbers;
  float *const normed, *const between, *const queries, *const attended, *const keys, *const values, *const inner;
  float *const of_threads;
};

// A layer, for one of the threads that share its work.
class Layer {
 public:
  Layer(const Arguments &arguments, int64_t number, const Sizes &sizes, Part part, const Scratch &scratch)
      : given_(arguments),
        number_(number),
        sizes_(sizes),
        part_(part),
        slots_(arguments.at<const int32_t>(kSlots) + part.first * sizes.kv_heads),
        scratch_(scratch),
        own_(scratch.of_threads + omp_get_thread_num() * scratch.of_thread) {}

  // x (tokens, hidden) -> y, which may be x.
  void run(const float *x, float *y) const {
    const int64_t tokens = part_.tokens;
    norm_rows(x, kFirstNorm);
    product(linear(kQuery), scratch_.normed, nullptr, scratch_.queries, tokens);
    product(linear(kKey), scratch_.normed, nullptr, scratch_.keys, tokens);
    product(linear(kValue), scratch_.normed, nullptr, scratch_.values, tokens);
#pragma omp barrier
    // All before any query, for tokens of one row see each other.
#pragma omp for
    for (int64_t head = 0; head < tokens * sizes_.kv_heads; ++head) write(head);
#pragma omp for schedule(dynamic)
    for (int64_t head = 0; head < tokens * sizes_.kv_heads; ++head) attention(head);
    product(linear(kOut), scratch_.attended, x, scratch_.between, tokens);
#pragma omp barrier
    norm_rows(scratch_.between, kSecondNorm);
    gated_product(linear(kGate), linear(kUp), scratch_.normed, scratch_.inner, tokens, own_);
#pragma omp barrier
    product(linear(kDown), scratch_.inner, scratch_.between, y, tokens);
#pragma omp barrier
  }

 private:
  const float *find(Place place) const { return given_.find(number_, place); }
  Linear linear(Place place) const { return given_.linear(number_, place); }

  void norm_rows(const float *x, Place weight) const {
    const int64_t hidden = sizes_.hidden;
#pragma omp for
    for (int64_t at = 0; at < part_.tokens * hidden; at += hidden) {
      best_norm(x + at, find(weight), scratch_.normed + at, hidden, sizes_.epsilon);
    }
  }

  // A token's key and value of one head, into the cache.
  void write(int64_t head) const {
    const int64_t width = sizes_.width, slot = slots_[head];
    float *key = scratch_.keys + head * width;
    place_head(key, kKeyNorm, kKeyCos, kKeySin, (part_.first * sizes_.kv_heads + head) * width);
    std::copy_n(key, width, given_.at<float>(given_.place(number_, kKeys)) + slot * width);
    std::copy_n(scratch_.values + head * width, width, given_.at<float>(given_.place(number_, kValues)) + slot * width);
  }

  // The queries of a token that share a head of keys and values.
  void attention(int64_t head) const {
    const int64_t width = sizes_.width, length = sizes_.length, group = sizes_.heads / sizes_.kv_heads;
    float *queries = scratch_.queries + head * group * width;
    for (int64_t at = 0; at < group * width; at += width) {
      const int64_t place = (part_.first * sizes_.kv_heads + head) * group * width + at;
      place_head(queries + at, kQueryNorm, kQueryCos, kQuerySin, place);
    }
    const int64_t *mask_shape = given_.shape(given_.place(number_, kMask));
    const int64_t mask_head = mask_shape[1] == 1 ? 0 : head % sizes_.kv_heads;
    const int64_t token = part_.first + head / sizes_.kv_heads;
    const float *mask = find(kMask) + (token * mask_shape[1] + mask_head) * mask_shape[2] * length;
    // What is masked at either end for one query of the group is so for all.
    int64_t first = 0, end = length;
    while (end > 1 && mask[end - 1] < kUnseen) --end;
    while (first < end - 1 && mask[first] < kUnseen) ++first;
    const int64_t seen = end - first, at = (slots_[head] / length * length + first) * width;
    const float *keys = find(kKeys) + at, *values = find(kValues) + at;
    best_piece(queries, keys, own_, group, seen, seen, width);
    for (int64_t g = 0; g < group; ++g) {
      best_attend(own_ + g * seen, mask + (mask_shape[2] == 1 ? 0 : g * length) + first, values,
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
  const Part part_;
  const int32_t *const slots_;
  const Scratch &scratch_;
  float *const own_;
};

// A part through all layers.
void run(const Arguments &arguments, const Sizes &sizes, Part part, int threads, float *y) {
  const Scratch scratch(arguments, sizes, part.tokens, threads);
  const float *x = arguments.at<const float>(kX) + part.first * sizes.hidden;
  y += part.first * sizes.hidden;
#pragma omp parallel num_threads(threads) if (sizes.weights() > kSmall || sizes.weights() * part.tokens > kAlone)
  for (int64_t layer = 0; layer < arguments.shape(kPlaces)[0]; ++layer) {
    Layer(arguments, layer, sizes, part, scratch).run(layer == 0 ? x : y, y);
  }
}

}  // namespace
}  // namespace ms_medqa

// See `Argument` and `Place` -> what the layers make of x, (tokens, hidden), with zeros behind the last. Writes to the
// caches. Returns 1 where a slot is in none of its head's rows, with nothing written, 2 without memory, and 3 for
// places that another version has made.
extern "C" int DecoderStep(int count, void **params, int *, int64_t **shapes, const char **, void *, void *) {
  using namespace ms_medqa;
  if (shapes[kPlaces][1] != kPlacesOfLayer) return 3;
  try {
    const Arguments arguments(params, shapes);
    const Sizes sizes(arguments);
    const int64_t slots = arguments.shape(arguments.place(0, kKeys))[0];
    for (int64_t head = 0; head < sizes.tokens * sizes.kv_heads; ++head) {
      const int64_t slot = arguments.at<const int32_t>(kSlots)[head];
      if (slot < 0 || slot >= slots || (slot / sizes.length - head) % sizes.kv_heads != 0) return 1;
    }
    float *y = static_cast<float *>(params[count - 1]);
    std::fill(y + sizes.tokens * sizes.hidden, y + arguments.shape(kX)[0] * sizes.hidden, 0.0f);
    const int many = threads();
    const std::vector<Part> all = parts(arguments, sizes, many);
    if (all.size() == 1) {
      run(arguments, sizes, all[0], many, y);
      return 0;
    }
    bool failed = false;
#pragma omp parallel for num_threads(many) schedule(dynamic) reduction(|| : failed)
    for (size_t number = 0; number < all.size(); ++number) {
      // No exception may leave the loop.
      try {
        run(arguments, sizes, all[number], 1, y);
      } catch (const std::exception &) {
        failed = true;
      }
    }
    if (failed) return 2;
  } catch (const std::exception &) {
    return 2;
  }
  return 0;
}
