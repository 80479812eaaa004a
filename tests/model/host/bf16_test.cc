// The bf16 ops against plain loops in fp64 on the same rounded numbers, over odd sizes.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "model/host/attention.h"
#include "model/host/bf16_product.h"
#include "model/host/feed_forward.h"
#include "model/host/linear.h"
#include "model/host/lm_head.h"
#include "model/host/rms_norm.h"
#include "model/host/rope.h"
#include "parallel/parallel_for.h"

namespace emo {
namespace {

template <typename Stored>
std::vector<Stored> random_numbers(int64_t count, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::normal_distribution<float> normal(0, 1);
  std::vector<Stored> numbers(count);
  for (Stored& number : numbers) number = narrow<Stored>(normal(random));
  return numbers;
}

// What a product sees of a number.
double rounded(float value) { return widen(narrow<Bf16>(value)); }
double rounded(Bf16 value) { return widen(value); }

TEST(Bf16, RoundsToTheNearestTiesToEven) {
  EXPECT_EQ(narrow<Bf16>(1.0f).x, 0x3F80);
  EXPECT_EQ(narrow<Bf16>(1.0f + 0x1p-8f).x, 0x3F80);             // a tie, down to even
  EXPECT_EQ(narrow<Bf16>(1.0f + 0x1p-8f + 0x1p-20f).x, 0x3F81);  // above it
  EXPECT_EQ(narrow<Bf16>(1.0f + 3 * 0x1p-8f).x, 0x3F82);         // a tie, up to even
  EXPECT_EQ(narrow<Bf16>(-std::numeric_limits<float>::infinity()).x, 0xFF80);
  EXPECT_TRUE(std::isnan(widen(narrow<Bf16>(std::bit_cast<float>(0x7FFFFFFFu)))));
  EXPECT_TRUE(std::isnan(widen(narrow<Bf16>(std::bit_cast<float>(0x7F800001u)))));
  for (const float value : random_numbers<float>(1000, 1)) {
    EXPECT_EQ(narrow<Bf16>(value).x, Bf16(value).x);
    EXPECT_NEAR(widen(narrow<Bf16>(value)), value, 0x1p-8 * std::abs(value));
  }
}

// Every kernel of this CPU: the plain loops at least.
std::vector<const Bf16Kernel*> kernels() {
  std::vector<const Bf16Kernel*> all = {&plain_bf16_kernel()};
  if (avx512_bf16_kernel() != nullptr) all.push_back(avx512_bf16_kernel());
  return all;
}

TEST(Bf16Panels, AreTheSameFromEveryKernel) {
  for (const auto& [terms, columns] : {std::pair{1, 1}, {7, 5}, {32, 32}, {33, 31}, {50, 14}}) {
    const int64_t stride = 61;
    const auto fp32 = random_numbers<float>(stride * stride, 2);
    const auto bf16 = random_numbers<Bf16>(stride * stride, 3);
    std::vector<std::vector<uint32_t>> found;
    for (const Bf16Kernel* kernel : kernels()) {
      std::vector<uint32_t> panels(4 * 32 * 26 + 2 * 14 * 26, 77);
      uint32_t* next = panels.data();
      kernel->pack_fp32(terms, columns, kKernelColumns, {fp32.data(), stride}, next);
      kernel->pack_bf16(terms, columns, kKernelColumns, {bf16.data(), stride}, next += 32 * 26);
      kernel->pack_transposed_fp32(terms, columns, {fp32.data(), stride}, next += 32 * 26);
      kernel->pack_transposed_bf16(terms, columns, {bf16.data(), stride}, next += 32 * 26);
      const int64_t narrow_columns = std::min<int64_t>(columns, kKernelRows);
      kernel->pack_fp32(terms, narrow_columns, kKernelRows, {fp32.data(), stride}, next += 32 * 26);
      kernel->pack_bf16(terms, narrow_columns, kKernelRows, {bf16.data(), stride}, next + 14 * 26);
      found.push_back(panels);
    }
    for (const auto& panels : found) EXPECT_EQ(panels, found[0]) << terms << " " << columns;
    // One entry by hand: the pair of the first two terms of the last column.
    const uint32_t pair = found[0][columns - 1];
    EXPECT_EQ(pair & 0xFFFF, narrow<Bf16>(fp32[columns - 1]).x);
    EXPECT_EQ(pair >> 16, terms > 1 ? narrow<Bf16>(fp32[stride + columns - 1]).x : 0);
  }
}

struct Shape {
  int64_t n, out, in;
};

// found[i, j] = before + sum over k of a(i, k) b(k, j); fp32 sums of `terms` products of numbers
// around 1, and one rounding where the result is bf16.
template <typename Stored, typename A, typename B>
void expect_product(const std::vector<Stored>& found, int64_t rows, int64_t columns, double before,
                    int64_t terms, const A& a, const B& b) {
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t j = 0; j < columns; ++j) {
      double sum = before;
      double size = std::abs(before);
      for (int64_t k = 0; k < terms; ++k) {
        sum += a(i, k) * b(k, j);
        size += std::abs(a(i, k) * b(k, j));
      }
      const double rounding = std::is_same_v<Stored, float> ? 0 : 0x1p-8 * std::abs(sum);
      ASSERT_NEAR(widen(found[i * columns + j]), sum, 1e-6 * size + rounding + 1e-30)
          << i << " " << j;
    }
  }
}

class Bf16Products : public ::testing::TestWithParam<Shape> {};

TEST_P(Bf16Products, EqualPlainLoopsWithEveryKernel) {
  const auto [n, out, in] = GetParam();
  const auto x = random_numbers<Bf16>(n * in, 1), dy = random_numbers<Bf16>(n * out, 2);
  const auto w = random_numbers<float>(out * in, 3);
  const auto x_at = [&, in = in](int64_t i, int64_t k) { return rounded(x[i * in + k]); };
  const auto w_at = [&, in = in](int64_t i, int64_t k) { return rounded(w[i * in + k]); };
  const auto dy_at = [&, out = out](int64_t i, int64_t k) { return rounded(dy[i * out + k]); };
  for (const Bf16Kernel* kernel : kernels()) {
    SCOPED_TRACE(kernel->name);
    for (const float beta : {0.0f, 1.0f}) {
      std::vector<float> y(n * out, 0.5f), dx(n * in, 0.5f), dw(out * in, 0.5f);
      bf16_product(*kernel, 'T', n, out, in, {x.data(), in}, ConstMatrixView(w.data(), in), beta,
                   MatrixView{y.data(), out});
      bf16_product(*kernel, 'N', n, in, out, {dy.data(), out}, ConstMatrixView(w.data(), in), beta,
                   MatrixView{dx.data(), in});
      bf16_product_transposed(*kernel, out, in, n, {dy.data(), out}, {x.data(), in}, beta,
                              {dw.data(), in});
      expect_product(y, n, out, 0.5 * beta, in, x_at,
                     [&](int64_t k, int64_t j) { return w_at(j, k); });
      expect_product(dx, n, in, 0.5 * beta, out, dy_at, w_at);
      expect_product(
          dw, out, in, 0.5 * beta, n, [&](int64_t i, int64_t k) { return dy_at(k, i); }, x_at);
    }
    std::vector<Bf16> y(n * out), dx(n * in);
    bf16_product(*kernel, 'T', n, out, in, {x.data(), in}, ConstMatrixView(w.data(), in), 0,
                 Bf16MatrixView{y.data(), out});
    bf16_product(*kernel, 'N', n, in, out, {dy.data(), out}, ConstMatrixView(w.data(), in), 0,
                 Bf16MatrixView{dx.data(), in});
    expect_product(y, n, out, 0, in, x_at, [&](int64_t k, int64_t j) { return w_at(j, k); });
    expect_product(dx, n, in, 0, out, dy_at, w_at);

    std::vector<Bf16> w16;  // the same product where the weights are bf16 already
    for (const float value : w) w16.push_back(narrow<Bf16>(value));
    std::vector<Bf16> y16(n * out), dx16(n * in);
    bf16_product(*kernel, 'T', n, out, in, {x.data(), in}, ConstBf16MatrixView(w16.data(), in), 0,
                 Bf16MatrixView{y16.data(), out});
    bf16_product(*kernel, 'N', n, in, out, {dy.data(), out}, ConstBf16MatrixView(w16.data(), in), 0,
                 Bf16MatrixView{dx16.data(), in});
    EXPECT_EQ(0, std::memcmp(y.data(), y16.data(), y.size() * sizeof(Bf16)));
    EXPECT_EQ(0, std::memcmp(dx.data(), dx16.data(), dx.size() * sizeof(Bf16)));
  }
}

// 1100 terms are three blocks of fp32 results, and one of bf16 ones.
INSTANTIATE_TEST_SUITE_P(Shapes, Bf16Products,
                         ::testing::Values(Shape{1, 1, 1}, Shape{3, 5, 7}, Shape{14, 32, 2},
                                           Shape{15, 33, 3}, Shape{129, 65, 33},
                                           Shape{226, 64, 256}, Shape{20, 1100, 37},
                                           Shape{1100, 21, 1101}, Shape{17, 700, 530}));

// Tiles on all threads and one thread inside a task give the same bits: the order of a sum does not
// depend on where its tile is cut.
TEST(Bf16Products, AreTheSameInTilesAndOnOneThread) {
  const int64_t n = 517, out = 301, in = 530;
  const auto x = random_numbers<Bf16>(n * in, 1), dy = random_numbers<Bf16>(n * out, 2);
  const auto w = random_numbers<float>(out * in, 3);
  std::vector<std::vector<float>> found;
  for (const bool inside : {false, true}) {
    std::vector<float> y(n * out, 1), dx(n * in), dw(out * in, 2);
    const auto compute = [&](int64_t i) {
      if (i > 0) return;
      linear(n, out, in, {x.data(), in}, {w.data(), in}, 1, {y.data(), out});
      linear_input_gradient(n, out, in, {dy.data(), out}, {w.data(), in}, 0, {dx.data(), in});
      linear_weight_gradient(n, out, in, {dy.data(), out}, {x.data(), in}, 1, {dw.data(), in});
    };
    if (inside) {
      thread_pool().run(2, compute);
    } else {
      compute(0);
    }
    y.insert(y.end(), dx.begin(), dx.end());
    y.insert(y.end(), dw.begin(), dw.end());
    found.push_back(y);
  }
  EXPECT_EQ(found[0], found[1]);
}

TEST(Bf16Products, EmptySumsAreZero) {
  const float w = 1;
  const Bf16 x = narrow<Bf16>(1);
  std::vector<float> dw(6, 3.0f);
  linear_weight_gradient(0, 2, 3, {&x, 2}, {&x, 3}, 1, {dw.data(), 3});
  EXPECT_EQ(dw, std::vector<float>(6, 3.0f));
  std::vector<Bf16> y(4, x);
  linear(2, 2, 0, {&x, 0}, {&w, 0}, 0, {y.data(), 2});
  for (const Bf16 value : y) EXPECT_EQ(widen(value), 0);
}

// What is not a number reaches the result: a run must see that it has gone wrong.
TEST(Bf16Products, KeepNotANumber) {
  const int64_t n = 3, out = 40, in = 8;
  for (const Bf16Kernel* kernel : kernels()) {
    auto x = random_numbers<Bf16>(n * in, 1);
    auto w = random_numbers<float>(out * in, 3);
    w[2 * in + 1] = std::numeric_limits<float>::quiet_NaN();
    std::vector<float> y(n * out);
    bf16_product(*kernel, 'T', n, out, in, {x.data(), in}, ConstMatrixView(w.data(), in), 0,
                 MatrixView{y.data(), out});
    for (int64_t j = 0; j < out; ++j) EXPECT_EQ(std::isnan(y[out + j]), j == 2) << kernel->name;
  }
}

// Both passes of a feed-forward in bf16 stay near those in fp32 on the same rounded inputs.
TEST(Bf16FeedForward, StaysNearFp32) {
  const int64_t n = 37, D = 24, F = 10;
  auto gate_up = random_numbers<float>(2 * F * D, 1), down = random_numbers<float>(D * F, 2);
  for (float& value : gate_up) value = static_cast<float>(rounded(value)) * 0.25f;
  for (float& value : down) value = static_cast<float>(rounded(value)) * 0.25f;
  const FeedForwardView weights{gate_up.data(), down.data(), D, F};
  const auto x16 = random_numbers<Bf16>(n * D, 3), dy16 = random_numbers<Bf16>(n * D, 4);
  const std::vector<float> x(x16.begin(), x16.end()), dy(dy16.begin(), dy16.end());
  const auto row_weights = random_numbers<float>(n, 5);
  std::vector<float> results[2], d_row_weights[2];
  const auto passes = [&](const auto& input, const auto& d_output, auto* of) {
    using Stored = std::remove_pointer_t<decltype(of)>;
    const int index = std::is_same_v<Stored, float> ? 0 : 1;
    std::vector<Stored> hidden(n * 2 * F), act(n * F), d_act(n * F);
    std::vector<float> y(n * D, 1), dx(n * D), d_gate_up(2 * F * D), d_down(D * F);
    d_row_weights[index].resize(n);
    const FeedForwardView gradients{d_gate_up.data(), d_down.data(), D, F};
    const FeedForwardRows<Stored> rows{n, input.data(), row_weights.data()};
    const FeedForwardMemory<Stored> memory{hidden.data(), act.data(), d_act.data()};
    feed_forward(weights, rows, memory, 1, y.data());
    feed_forward_backward(weights, rows, d_output.data(), memory, 1, gradients, 0, dx.data(),
                          d_row_weights[index].data());
    for (const auto& part : {y, dx, d_gate_up, d_down, d_row_weights[index]}) {
      results[index].insert(results[index].end(), part.begin(), part.end());
    }
  };
  passes(x, dy, static_cast<float*>(nullptr));
  passes(x16, dy16, static_cast<Bf16*>(nullptr));
  double largest = 0, difference = 0;
  for (size_t i = 0; i < results[0].size(); ++i) {
    largest = std::max(largest, std::abs(double{results[0][i]}));
    difference = std::max(difference, std::abs(double{results[0][i]} - results[1][i]));
  }
  EXPECT_LT(difference, 0.01 * largest);
  EXPECT_GT(difference, 0) << "bf16 took the fp32 path";
}

// Largest difference as a part of the largest entry.
template <typename A>
double distance(const std::vector<A>& found, const std::vector<float>& expected) {
  double largest = 0, difference = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    largest = std::max(largest, std::abs(double{expected[i]}));
    difference = std::max(difference, std::abs(double{widen(found[i])} - expected[i]));
  }
  return difference / largest;
}

// Spans of one token, of odd lengths and of more than one block of queries.
TEST(Bf16Attention, StaysNearFp32OnTheSameInputs) {
  const int64_t H = 3, W = 6, D = H * W;
  const std::vector<int32_t> ends = {0, 1, 8, 145};
  const int64_t T = ends.back();
  const AttentionShape shape{H, W, ends.data(), 3};
  const auto qkv16 = random_numbers<Bf16>(T * 3 * D, 1), d_out16 = random_numbers<Bf16>(T * D, 2);
  const std::vector<float> qkv(qkv16.begin(), qkv16.end()), d_out(d_out16.begin(), d_out16.end());
  std::vector<float> out(T * D), logsumexp(T * H), d_qkv(T * 3 * D), logsumexp16(T * H);
  std::vector<Bf16> out16(T * D), d_qkv16(T * 3 * D);
  Scratch scratch;
  attention(shape, qkv.data(), out.data(), logsumexp.data(), &scratch);
  attention_backward(shape, qkv.data(), out.data(), logsumexp.data(), d_out.data(), d_qkv.data(),
                     &scratch);
  attention(shape, qkv16.data(), out16.data(), logsumexp16.data(), &scratch);
  attention_backward(shape, qkv16.data(), out16.data(), logsumexp16.data(), d_out16.data(),
                     d_qkv16.data(), &scratch);
  EXPECT_LT(distance(logsumexp16, logsumexp), 1e-5);  // scores are fp32 sums of the same numbers
  EXPECT_LT(distance(out16, out), 0.01);
  EXPECT_LT(distance(d_qkv16, d_qkv), 0.02);
}

TEST(Bf16Norm, IsTheFp32NormRounded) {
  const int64_t T = 131, D = 37;
  const auto x = random_numbers<float>(T * D, 1), w = random_numbers<float>(D, 2);
  std::vector<float> y(T * D), reciprocal(T), reciprocal16(T);
  std::vector<Bf16> y16(T * D);
  rms_norm(T, D, x.data(), w.data(), 1e-6f, y.data(), reciprocal.data());
  rms_norm(T, D, x.data(), w.data(), 1e-6f, y16.data(), reciprocal16.data());
  EXPECT_LT(distance(reciprocal16, reciprocal), 1e-6);
  for (int64_t i = 0; i < T * D; ++i) EXPECT_NEAR(widen(y16[i]), y[i], 0x1p-8 * std::abs(y[i]));
}

TEST(Bf16Rotation, TurnsBack) {
  const int64_t T = 9, heads = 2, W = 34, stride = 3 * W;
  const RopeTable table = make_rope_table(T, W, 10000, at::kCPU);
  std::vector<int32_t> positions(T);
  for (int64_t t = 0; t < T; ++t) positions[t] = static_cast<int32_t>(t);
  const auto before = random_numbers<Bf16>(T * stride, 1);
  std::vector<Bf16> x = before;
  std::vector<float> fp32(before.begin(), before.end());
  rotate(table, Rotation::kForward, T, positions.data(), heads, W, stride, x.data());
  rotate(table, Rotation::kForward, T, positions.data(), heads, W, stride, fp32.data());
  EXPECT_LT(distance(x, fp32), 0x1p-8);
  rotate(table, Rotation::kBackward, T, positions.data(), heads, W, stride, x.data());
  EXPECT_LT(distance(x, std::vector<float>(before.begin(), before.end())), 0x1p-6);
}

// Also where the model is sure of the label, and what is left of the gradient is a difference of
// nearly equal numbers.
TEST(Bf16Head, LossAndGradientsStayNearFp32) {
  const int64_t T = 45, V = 301, D = 17;
  for (const float sureness : {1.0f, 30.0f}) {
    const auto w = random_numbers<float>(V * D, 1);
    std::vector<Bf16> x16(T * D);
    std::vector<int32_t> labels(T);
    for (int64_t t = 0; t < T; ++t) {
      labels[t] = t % 7 == 0 ? -100 : static_cast<int32_t>(t * 6);
      for (int64_t d = 0; d < D; ++d) {
        x16[t * D + d] = narrow<Bf16>(sureness / D * w[std::max(labels[t], 0) * D + d]);
      }
    }
    const std::vector<float> x(x16.begin(), x16.end());
    std::vector<float> wide_w = w;
    for (float& value : wide_w) value = static_cast<float>(rounded(value));
    std::vector<float> dx(T * D), dx16(T * D), dw(V * D), dw16(V * D);
    Scratch scratch;
    const LmHeadWeights head{wide_w.data(), V, D};
    const LmLoss loss = lm_loss_and_gradients(head, {dw.data(), V, D}, T, x.data(), labels.data(),
                                              0.1f, 1e-4f, dx.data(), &scratch);
    const LmLoss loss16 = lm_loss_and_gradients(head, {dw16.data(), V, D}, T, x16.data(),
                                                labels.data(), 0.1f, 1e-4f, dx16.data(), &scratch);
    EXPECT_NEAR(loss16.cross_entropy, loss.cross_entropy, 1e-4 * loss.cross_entropy + 1e-4);
    EXPECT_EQ(loss16.labels, loss.labels);
    EXPECT_LT(distance(dx16, dx), 0.01) << sureness;
    EXPECT_LT(distance(dw16, dw), 0.01) << sureness;
  }
}

}  // namespace
}  // namespace emo
