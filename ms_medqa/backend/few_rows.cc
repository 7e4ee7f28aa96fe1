// Few rows against a matrix, y = x W', about as fast as memory gives W: what the next token of each answer waits for.
//
// A function for MindSpore's operator `Custom` (func_type "aot"). MindSpore's own MatMul reads W at half of that rate for
// one row (docs/performance.md).

#include <omp.h>

#include <algorithm>
#include <cstdint>
#include <cstring>

#define INLINE __attribute__((always_inline)) inline

namespace {

// Sixteen numbers, which the compiler divides into what the processor has.
typedef float Lanes __attribute__((vector_size(64), aligned(4), may_alias));
constexpr int64_t kLanes = 16;
// Numbers of W in a piece of work: small, so that all threads end at about the same time even if others disturb one.
constexpr int64_t kPiece = 32768;
// A smaller W is not worth waking a second thread.
constexpr int64_t kAlone = 200000;

INLINE Lanes load(const float *from) { return *reinterpret_cast<const Lanes *>(from); }

INLINE float total(Lanes lanes) {
  typedef float Half __attribute__((vector_size(32)));
  typedef float Quarter __attribute__((vector_size(16)));
  Half halves[2];
  std::memcpy(halves, &lanes, sizeof(lanes));
  const Half half = halves[0] + halves[1];
  Quarter quarters[2];
  std::memcpy(quarters, &half, sizeof(half));
  const Quarter quarter = quarters[0] + quarters[1];
  return (quarter[0] + quarter[1]) + (quarter[2] + quarter[3]);
}

// A block of the result: R rows of x against M of W, each sum in U parts, so that no addition waits for the one before.
// All loops over R, M and U must be unrolled, or the sums lie in memory.
template <int R, int M, int U>
INLINE void block(const float *x, const float *w, float *y, int64_t n, int64_t k) {
  Lanes sums[R][M][U] = {};
  int64_t at = 0;
  for (; at + U * kLanes <= k; at += U * kLanes) {
#pragma GCC unroll 4
    for (int u = 0; u < U; ++u) {
      Lanes weights[M];
#pragma GCC unroll 4
      for (int m = 0; m < M; ++m) weights[m] = load(w + m * k + at + u * kLanes);
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        const Lanes row = load(x + r * k + at + u * kLanes);
#pragma GCC unroll 4
        for (int m = 0; m < M; ++m) sums[r][m][u] += row * weights[m];
      }
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int m = 0; m < M; ++m) {
      Lanes lanes = sums[r][m][0];
#pragma GCC unroll 4
      for (int u = 1; u < U; ++u) lanes += sums[r][m][u];
      float sum = total(lanes);
      for (int64_t rest = at; rest < k; ++rest) sum += x[r * k + rest] * w[m * k + rest];
      y[r * n + m] = sum;
    }
  }
}

// All rows of x against M of W, which the first block leaves in the cache for the others.
template <int M>
INLINE void all_rows(const float *x, const float *w, float *y, int64_t rows, int64_t n, int64_t k) {
  for (; rows >= 8; rows -= 8, x += 8 * k, y += 8 * n) block<8, M, 1>(x, w, y, n, k);
  for (; rows >= 3; rows -= 3, x += 3 * k, y += 3 * n) block<3, M, 1>(x, w, y, n, k);
  for (; rows >= 1; rows -= 1, x += k, y += n) block<1, M, 4 / M>(x, w, y, n, k);
}

// `count` rows of W. Up to four rows of x leave time to read one row of W after the other, which memory gives faster than
// four side by side; more of them need each of their numbers for several rows of W.
INLINE void piece(const float *x, const float *w, float *y, int64_t rows, int64_t count, int64_t n, int64_t k) {
  int64_t first = 0;
  if (rows > 4) {
    for (; first + 4 <= count; first += 4) all_rows<4>(x, w + first * k, y + first, rows, n, k);
  }
  for (; first < count; ++first) {
    const float *one = w + first * k;
    if (rows == 4) block<4, 1, 1>(x, one, y + first, n, k);
    else if (rows == 2) block<2, 1, 4>(x, one, y + first, n, k);
    else all_rows<1>(x, one, y + first, rows, n, k);
  }
}

typedef void (*Piece)(const float *, const float *, float *, int64_t, int64_t, int64_t, int64_t);

void plain(const float *x, const float *w, float *y, int64_t rows, int64_t count, int64_t n, int64_t k) {
  piece(x, w, y, rows, count, n, k);
}

#if defined(__x86_64__)
__attribute__((target("avx2,fma"))) void avx2(const float *x, const float *w, float *y, int64_t rows, int64_t count,
                                              int64_t n, int64_t k) {
  piece(x, w, y, rows, count, n, k);
}

__attribute__((target("avx512f,avx512dq,avx512vl,fma"))) void avx512(const float *x, const float *w, float *y,
                                                                     int64_t rows, int64_t count, int64_t n, int64_t k) {
  piece(x, w, y, rows, count, n, k);
}

// What this processor has, which may be another than that of the machine that compiled this.
Piece best() {
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")) {
    return avx512;
  }
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? avx2 : plain;
}
#else
Piece best() { return plain; }
#endif

}  // namespace

// float32 x (rows, k) and W (n, k) -> y (rows, n).
extern "C" int FewRows(int, void **params, int *, int64_t **shapes, const char **, void *, void *) {
  const float *x = static_cast<const float *>(params[0]);
  const float *w = static_cast<const float *>(params[1]);
  float *y = static_cast<float *>(params[2]);
  const int64_t rows = shapes[0][0], k = shapes[0][1], n = shapes[1][0];
  const int64_t step = kPiece / k / 4 * 4 + 4;
  static const Piece run = best();
  // OpenMP has counted the cores when it was loaded; the process may have been bound to fewer since.
  const int threads = std::min(omp_get_max_threads(), omp_get_num_procs());
#pragma omp parallel for schedule(dynamic) num_threads(threads) if (n * k > kAlone)
  for (int64_t first = 0; first < n; first += step) {
    run(x, w + first * k, y + first, rows, first + step < n ? step : n - first, n, k);
  }
  return 0;
}
