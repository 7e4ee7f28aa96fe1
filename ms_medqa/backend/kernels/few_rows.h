// Products of few rows, y = x W', about as fast as memory gives W. All numbers are float32.

#ifndef MS_MEDQA_BACKEND_FEW_ROWS_H_
#define MS_MEDQA_BACKEND_FEW_ROWS_H_

#include <cstdint>

namespace ms_medqa {

// W (n, k), and a bias (n) or nullptr.
struct Linear {
  const float *weight, *bias;
  int64_t n, k;
};

// How many threads a parallel region should have.
int threads();

// Rows x (rows, k) against a matrix (count, k), on this thread: y = x W', in rows of n numbers.
extern void (*const best_piece)(const float *x, const float *w, float *y, int64_t rows, int64_t count, int64_t n,
                                int64_t k);

// y = x W' + bias + residual, shared among the threads of the parallel region that calls it, which do not wait for each
// other at the end. x (rows, k), residual (rows, n) or nullptr -> y (rows, n).
void product(const Linear &linear, const float *x, const float *residual, float *y, int64_t rows);

// y = silu(gate) * up, of two products of one shape; otherwise the same. `scratch` is the thread's own, `gated_scratch`
// numbers.
void gated_product(const Linear &gate, const Linear &up, const float *x, float *y, int64_t rows, float *scratch);
int64_t gated_scratch(const Linear &gate, int64_t rows);

}  // namespace ms_medqa

#endif  // MS_MEDQA_BACKEND_FEW_ROWS_H_
