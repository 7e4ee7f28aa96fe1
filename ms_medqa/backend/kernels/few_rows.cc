// Few rows against a matrix, y = x W', about as fast as memory gives W: what the next token of each answer waits for.
//
// `FewRows` is a function for MindSpore's operator `Custom` (func_type "aot"). MindSpore's own MatMul reads W at half
// of that rate for one row (docs/performance.md).

#include "few_rows.h"

#include <omp.h>

#include <algorithm>

#include "lanes.h"

namespace ms_medqa {
namespace {

// Numbers of W in the smallest piece of work. A thread first takes its share of all, then of what is left: that reads 2
// to 8 % faster than small pieces all along, and at the end they are small, so that no thread waits long for another.
constexpr int64_t kPiece = 32768;
// A smaller W is not worth waking a second thread.
constexpr int64_t kAlone = 200000;

// A block of the result: R rows of x against M of W, each sum in U parts, so that no addition waits for the one before.
// All loops over R, M and U must be unrolled, or the sums lie in memory.
template <typename V, int R, int M, int U>
INLINE void block(const float *x, const float *w, float *y, int64_t n, int64_t k) {
  using Lanes = typename V::Lanes;
  constexpr int64_t kLanes = V::kLanes;
  Lanes sums[R][M][U] = {};
  int64_t at = 0;
  for (; at + U * kLanes <= k; at += U * kLanes) {
#pragma GCC unroll 4
    for (int u = 0; u < U; ++u) {
      Lanes weights[M];
#pragma GCC unroll 4
      for (int m = 0; m < M; ++m) {
        weights[m] = load<V>(w + m * k + at + u * kLanes);
        // With several rows at once, the processor does not see by itself what comes next.
        if (M > 1) __builtin_prefetch(w + (M + m) * k + at + u * kLanes, 0, 2);
      }
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        const Lanes row = load<V>(x + r * k + at + u * kLanes);
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
template <typename V, int M>
INLINE void all_rows(const float *x, const float *w, float *y, int64_t rows, int64_t n, int64_t k) {
  constexpr int kRows = V::kRows;
  for (; rows >= kRows; rows -= kRows, x += kRows * k, y += kRows * n) block<V, kRows, M, 1>(x, w, y, n, k);
  for (; rows >= 2; rows -= 2, x += 2 * k, y += 2 * n) block<V, 2, M, 1>(x, w, y, n, k);
  if (rows == 1) block<V, 1, M, 1>(x, w, y, n, k);
}

// `count` rows of W. Up to four rows of x leave time to read one row of W after the other, which memory gives faster
// than four side by side; more of them need each of their numbers for several rows of W.
template <typename V>
INLINE void piece(const float *x, const float *w, float *y, int64_t rows, int64_t count, int64_t n, int64_t k) {
  constexpr int kColumns = V::kColumns;
  int64_t first = 0;
  if (rows > 4) {
    for (; first + kColumns <= count; first += kColumns) {
      all_rows<V, kColumns>(x, w + first * k, y + first, rows, n, k);
    }
  }
  for (; first < count; ++first) {
    const float *one = w + first * k;
    float *to = y + first;
    switch (rows) {
      case 1: block<V, 1, 1, 4>(x, one, to, n, k); break;
      case 2: block<V, 2, 1, 4>(x, one, to, n, k); break;
      case 3: block<V, 3, 1, 2>(x, one, to, n, k); break;
      case 4: block<V, 4, 1, 1>(x, one, to, n, k); break;
      default: all_rows<V, 1>(x, one, to, rows, n, k);
    }
  }
}

// gate = silu(gate) * up for so many columns of both, which lie in rows of other lengths.
template <typename V>
INLINE void gated(float *gate, const float *up, int64_t rows, int64_t count, int64_t gate_row, int64_t up_row) {
  for (int64_t r = 0; r < rows; ++r, gate += gate_row, up += up_row) {
    for (int64_t at = 0; at < count; at += V::kLanes) {
      const int64_t some = least(V::kLanes, count - at);
      const typename V::Lanes lanes = load<V>(gate + at, some);
      store<V>(gate + at, lanes / (exponential<V>(-lanes) + 1.0f) * load<V>(up + at, some), some);
    }
  }
}

FOR_THIS_PROCESSOR(gated, (float *gate, const float *up, int64_t rows, int64_t count, int64_t gate_row, int64_t up_row),
                   (gate, up, rows, count, gate_row, up_row))

// Rows of W in a piece of work.
int64_t piece_rows(int64_t k) { return kPiece / k / 4 * 4 + 4; }

}  // namespace

FOR_THIS_PROCESSOR(piece,
                   (const float *x, const float *w, float *y, int64_t rows, int64_t count, int64_t n, int64_t k),
                   (x, w, y, rows, count, n, k))

namespace {

// x against `count` rows of a layer's matrix, with the bias, in rows of `row` numbers.
void part(const Linear &linear, int64_t first, int64_t count, const float *x, float *y, int64_t rows, int64_t row) {
  best_piece(x, linear.weight + first * linear.k, y, rows, count, row, linear.k);
  for (int64_t r = 0; linear.bias != nullptr && r < rows; ++r) {
    for (int64_t at = 0; at < count; ++at) y[r * row + at] += linear.bias[first + at];
  }
}

}  // namespace

// OpenMP has counted the cores when it was loaded; the process may have been bound to fewer since.
int threads() { return std::min(omp_get_max_threads(), omp_get_num_procs()); }

void product(const Linear &linear, const float *x, const float *residual, float *y, int64_t rows) {
  const int64_t n = linear.n, step = piece_rows(linear.k);
#pragma omp for schedule(guided) nowait
  for (int64_t first = 0; first < n; first += step) {
    const int64_t count = std::min(step, n - first);
    part(linear, first, count, x, y + first, rows, n);
    for (int64_t r = 0; residual != nullptr && r < rows; ++r) {
      for (int64_t at = r * n + first; at < r * n + first + count; ++at) y[at] += residual[at];
    }
  }
}

void gated_product(const Linear &gate, const Linear &up, const float *x, float *y, int64_t rows, float *scratch) {
  const int64_t n = gate.n, step = piece_rows(gate.k);
#pragma omp for schedule(guided) nowait
  for (int64_t first = 0; first < n; first += step) {
    const int64_t count = std::min(step, n - first);
    part(gate, first, count, x, y + first, rows, n);
    part(up, first, count, x, scratch, rows, count);
    best_gated(y + first, scratch, rows, count, n, count);
  }
}

int64_t gated_scratch(const Linear &gate, int64_t rows) { return rows * piece_rows(gate.k); }

}  // namespace ms_medqa

// Which functions there are, with which arguments: `INTERFACE` in few_rows_library.py.
extern "C" int FewRowsInterface() { return 2; }

// x (rows, k), W (n, k) -> y (rows, n).
extern "C" int FewRows(int, void **params, int *, int64_t **shapes, const char **, void *, void *) {
  const int64_t rows = shapes[0][0];
  const ms_medqa::Linear linear{static_cast<const float *>(params[1]), nullptr, shapes[1][0], shapes[1][1]};
#pragma omp parallel num_threads(ms_medqa::threads()) if (linear.n * linear.k > ms_medqa::kAlone)
  ms_medqa::product(linear, static_cast<const float *>(params[0]), nullptr, static_cast<float *>(params[2]), rows);
  return 0;
}
