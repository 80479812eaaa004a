#include "model/host/linear.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <string>
#include <vector>

#include "model/host/fp32_product.h"
#include "model/host/transpose.h"
#include "parallel/parallel_for.h"

namespace emo {
namespace {

constexpr float kOutside = -777;  // what padding holds, and must still hold afterwards

// A matrix inside a wider one.
struct Padded {
  int64_t rows, columns, stride;
  std::vector<float> data;
  Padded(int64_t r, int64_t c, uint64_t seed) : rows(r), columns(c), stride(c + 3) {
    data.assign(rows * stride, kOutside);
    std::mt19937_64 random(seed);
    std::normal_distribution<float> normal(0, 1);
    for (int64_t i = 0; i < rows; ++i) {
      for (int64_t j = 0; j < columns; ++j) data[i * stride + j] = normal(random);
    }
  }
  double at(int64_t i, int64_t j) const { return data[i * stride + j]; }
  ConstMatrixView view() const { return {data.data(), stride}; }
  MatrixView view() { return {data.data(), stride}; }
};

// found = beta * before + sum over k of a(i, k) b(k, j), with k terms
template <typename A, typename B>
void expect_product(const Padded& found, const Padded& before, double beta, int64_t k, const A& a,
                    const B& b) {
  for (int64_t i = 0; i < found.rows; ++i) {
    for (int64_t j = 0; j < found.stride; ++j) {
      if (j >= found.columns) {
        ASSERT_EQ(found.at(i, j), kOutside);
        continue;
      }
      double expected = beta * before.at(i, j);
      for (int64_t x = 0; x < k; ++x) expected += a(i, x) * b(x, j);
      ASSERT_NEAR(found.at(i, j), expected, 2e-6 * static_cast<double>(k) + 1e-6) << i << " " << j;
    }
  }
}

struct Shape {
  int64_t n, out, in;
};
class Products : public ::testing::TestWithParam<Shape> {};

TEST_P(Products, EqualPlainLoopsOnOneThreadAndInTiles) {
  const auto [n, out, in] = GetParam();
  const Padded x(n, in, 1), w(out, in, 2), dy(n, out, 3);
  const Padded y0(n, out, 4), dx0(n, in, 5), dw0(out, in, 6);
  for (const bool one_thread : {false, true}) {
    for (const float beta : {0.0f, 1.0f}) {
      Padded y = y0, dx = dx0, dw = dw0;
      const auto compute = [&, n = n, out = out, in = in](int64_t) {
        linear(n, out, in, x.view(), w.view(), beta, y.view());
        linear_input_gradient(n, out, in, dy.view(), w.view(), beta, dx.view());
        linear_weight_gradient(n, out, in, dy.view(), x.view(), beta, dw.view());
      };
      if (one_thread) {
        thread_pool().run(2, [&](int64_t i) {
          if (i == 0) compute(i);  // inside a task: no tiles
        });
      } else {
        compute(0);
      }
      expect_product(
          y, y0, beta, in, [&](int64_t i, int64_t k) { return x.at(i, k); },
          [&](int64_t k, int64_t j) { return w.at(j, k); });
      expect_product(
          dx, dx0, beta, out, [&](int64_t i, int64_t k) { return dy.at(i, k); },
          [&](int64_t k, int64_t j) { return w.at(k, j); });
      expect_product(
          dw, dw0, beta, n, [&](int64_t i, int64_t k) { return dy.at(k, i); },
          [&](int64_t k, int64_t j) { return x.at(k, j); });
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, Products,
                         ::testing::Values(Shape{1, 1, 1}, Shape{3, 5, 7}, Shape{129, 65, 33},
                                           Shape{700, 260, 40}, Shape{260, 700, 130},
                                           Shape{513, 257, 257}, Shape{1, 64, 32}, Shape{64, 1, 32},
                                           Shape{64, 32, 1}, Shape{0, 4, 4}, Shape{4, 4, 0}));

// Whichever this CPU would choose.
TEST_P(Products, EqualPlainLoopsByEachLibrary) {
  const auto [m, n, k] = GetParam();
  if (m == 0 || n == 0 || k == 0) return;  // linear() keeps such from the libraries
  const Padded a(m, k, 1), a_turned(k, m, 2), b(k, n, 3), b_turned(n, k, 4), c0(m, n, 5);
  for (const Fp32Library library : {Fp32Library::kMkl, Fp32Library::kOneDnn}) {
    for (const char op_a : {'N', 'T'}) {
      for (const char op_b : {'N', 'T'}) {
        for (const float beta : {0.0f, 1.0f}) {
          SCOPED_TRACE(std::string(fp32_library_name(library)) + " " + op_a + op_b);
          Padded c = c0;
          fp32_product(library, op_a, op_b, m, n, k, (op_a == 'N' ? a : a_turned).view(),
                       (op_b == 'N' ? b : b_turned).view(), beta, c.view());
          expect_product(
              c, c0, beta, k,
              [&](int64_t i, int64_t x) { return op_a == 'N' ? a.at(i, x) : a_turned.at(x, i); },
              [&](int64_t x, int64_t j) { return op_b == 'N' ? b.at(x, j) : b_turned.at(j, x); });
        }
      }
    }
  }
}

// A product that is written over what was there does not look at it.
TEST_P(Products, WriteOverWhatIsNoNumber) {
  const auto [m, n, k] = GetParam();
  if (m == 0 || n == 0 || k == 0) return;
  const Padded a(m, k, 1), a_turned(k, m, 2), b(k, n, 3), b_turned(n, k, 4);
  for (const Fp32Library library : {Fp32Library::kMkl, Fp32Library::kOneDnn}) {
    for (const char op_a : {'N', 'T'}) {
      for (const char op_b : {'N', 'T'}) {
        std::vector<float> c(m * n, std::nanf(""));
        fp32_product(library, op_a, op_b, m, n, k, (op_a == 'N' ? a : a_turned).view(),
                     (op_b == 'N' ? b : b_turned).view(), 0, {c.data(), n});
        for (const float value : c) {
          ASSERT_TRUE(std::isfinite(value)) << fp32_library_name(library) << " " << op_a << op_b;
        }
      }
    }
  }
}

TEST(Transpose, EqualsAPlainLoopOverOddSizes) {
  for (const int64_t rows : {1, 15, 16, 17, 48, 67}) {
    for (const int64_t columns : {1, 16, 31, 32, 65}) {
      const Padded from(rows, columns, 1);
      Padded fast(columns, rows, 2), slow(columns, rows, 2);
      transpose(rows, columns, from.view(), fast.view());
      transpose_plainly(rows, columns, from.view(), slow.view());
      EXPECT_EQ(fast.data, slow.data) << rows << " x " << columns;
      EXPECT_EQ(slow.at(columns - 1, rows - 1), from.at(rows - 1, columns - 1));
    }
  }
}

TEST(Products, TheSuiteRunsOnSeveralThreads) { EXPECT_GE(num_threads(), 2); }

}  // namespace
}  // namespace emo
