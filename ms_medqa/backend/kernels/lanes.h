// Arithmetic on several numbers at a time, as many as the processor has in a register.

#ifndef MS_MEDQA_BACKEND_LANES_H_
#define MS_MEDQA_BACKEND_LANES_H_

#include <cstdint>
#include <cstring>
#include <limits>

#define INLINE __attribute__((always_inline)) inline

// Defines `best_name`, which calls `name` as compiled for the processor that this runs on; it may be another than that
// of the machine that compiled this. `name` is a template over one of the structs below. It must be INLINE, with all
// that it calls and that takes or returns lanes.
#if defined(__x86_64__)
#define FOR_THIS_PROCESSOR(name, parameters, arguments)                                                              \
  void plain_##name parameters { name<Four> arguments; }                                                             \
  __attribute__((target("avx2,fma"))) void avx2_##name parameters { name<Eight> arguments; }                         \
  __attribute__((target("avx512f,avx512dq,avx512vl,fma"))) void avx512_##name parameters { name<Sixteen> arguments; }\
  void(*const best_##name) parameters = has_avx512() ? avx512_##name : has_avx2() ? avx2_##name : plain_##name;
#else
#define FOR_THIS_PROCESSOR(name, parameters, arguments)  \
  void plain_##name parameters { name<Four> arguments; } \
  void(*const best_##name) parameters = plain_##name;
#endif
// Tests set it to 4 or 8, for what smaller processors do.
#if !defined(MS_MEDQA_MOST_LANES)
#define MS_MEDQA_MOST_LANES 16
#endif

namespace ms_medqa {

// For registers of so many numbers: their type; and the block of a product whose sums all find a register.
#define LANES(Name, Count, Rows, Columns)                                                   \
  struct Name {                                                                             \
    typedef float Lanes __attribute__((vector_size(4 * Count), aligned(4), may_alias));     \
    typedef uint32_t Bits __attribute__((vector_size(4 * Count), aligned(4), may_alias));   \
    static constexpr int64_t kLanes = Count;                                                \
    static constexpr int kRows = Rows, kColumns = Columns;                                  \
  };

LANES(Four, 4, 6, 2)
LANES(Eight, 8, 6, 2)
LANES(Sixteen, 16, 6, 4)
#undef LANES

INLINE int64_t least(int64_t one, int64_t other) { return one < other ? one : other; }

template <typename V>
INLINE typename V::Lanes load(const float *from) {
  return *reinterpret_cast<const typename V::Lanes *>(from);
}

template <typename V>
INLINE void store(float *to, typename V::Lanes lanes) {
  *reinterpret_cast<typename V::Lanes *>(to) = lanes;
}

// `count` numbers, at most as many as there are lanes; the others are `rest`.
template <typename V>
INLINE typename V::Lanes load(const float *from, int64_t count, float rest = 0.0f) {
  if (count == V::kLanes) return load<V>(from);
  typename V::Lanes lanes = typename V::Lanes{} + rest;
  std::memcpy(&lanes, from, sizeof(float) * count);
  return lanes;
}

template <typename V>
INLINE void store(float *to, typename V::Lanes lanes, int64_t count) {
  if (count == V::kLanes) return store<V>(to, lanes);
  std::memcpy(to, &lanes, sizeof(float) * count);
}

INLINE float total(Four::Lanes lanes) { return (lanes[0] + lanes[1]) + (lanes[2] + lanes[3]); }

INLINE float total(Eight::Lanes lanes) {
  Four::Lanes halves[2];
  std::memcpy(halves, &lanes, sizeof(lanes));
  return total(halves[0] + halves[1]);
}

INLINE float total(Sixteen::Lanes lanes) {
  Eight::Lanes halves[2];
  std::memcpy(halves, &lanes, sizeof(lanes));
  return total(halves[0] + halves[1]);
}

// e^x; 0 below -87, infinite above 88. With x = n log 2 + r, |r| <= log(2) / 2, it is 2^n times the Taylor series of
// e^r, whose next term is below 6e-9.
template <typename V>
INLINE typename V::Lanes exponential(typename V::Lanes x) {
  using Lanes = typename V::Lanes;
  constexpr float kLeast = -87.0f, kMost = 88.0f;
  // Added and taken away, it leaves a whole number, which then is in the sum's last bits.
  constexpr float kRound = 12582912.0f;
  const Lanes bounded = x < kLeast ? Lanes{} + kLeast : x > kMost ? Lanes{} + kMost : x;
  const Lanes rounded = bounded * 1.44269504f + kRound;
  const Lanes n = rounded - kRound;
  // log 2 in two parts, of which n times the first is exact.
  const Lanes r = bounded - n * 0.693359375f + n * 2.12194440e-4f;
  Lanes sum = r * (1.0f / 5040) + 1.0f / 720;
  sum = sum * r + 1.0f / 120;
  sum = sum * r + 1.0f / 24;
  sum = sum * r + 1.0f / 6;
  sum = sum * r + 0.5f;
  sum = sum * r + 1.0f;
  sum = sum * r + 1.0f;
  // 2^n: float32 keeps its exponent, plus 127, above 23 other bits. What is kRound's own lies higher and is shifted out.
  typename V::Bits bits;
  std::memcpy(&bits, &rounded, sizeof(bits));
  bits = (bits + 127) << 23;
  Lanes power;
  std::memcpy(&power, &bits, sizeof(power));
  const Lanes result = sum * power;
  return x < kLeast ? Lanes{} : x > kMost ? Lanes{} + std::numeric_limits<float>::infinity() : result;
}

#if defined(__x86_64__)
INLINE bool has_avx2() {
  __builtin_cpu_init();
  return MS_MEDQA_MOST_LANES >= 8 && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

INLINE bool has_avx512() {
  __builtin_cpu_init();
  return MS_MEDQA_MOST_LANES >= 16 && has_avx2() && __builtin_cpu_supports("avx512f") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}
#endif

}  // namespace ms_medqa

#endif  // MS_MEDQA_BACKEND_LANES_H_
