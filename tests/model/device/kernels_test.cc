// Every kernel of the device path against the CPU path's function or a plain loop, at odd sizes.
// Run on a GPU with EMO_TEST_DEVICE=cuda.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>

#include "model/device/attention.h"
#include "model/device/backend.h"
#include "model/device/exchange.h"
#include "model/device/kernels/cross_entropy.h"
#include "model/device/kernels/embedding.h"
#include "model/device/kernels/plain_attention.h"
#include "model/device/kernels/rms_norm.h"
#include "model/device/kernels/rope.h"
#include "model/device/kernels/router_choice.h"
#include "model/device/kernels/router_scores.h"
#include "model/device/kernels/rows.h"
#include "model/device/kernels/swiglu.h"
#include "model/device/matrix.h"
#include "model/host/attention.h"
#include "model/host/backend.h"
#include "model/host/document_pools.h"
#include "model/host/rms_norm.h"
#include "model/host/rope.h"
#include "parallel/self_communicator.h"
#include "tests/model/device/device_under_test.h"

namespace emo {
namespace {

// A copy: what a kernel writes is never what it is compared with.
at::Tensor on(const at::Tensor& tensor) { return tensor.clone().to(device_under_test()); }
at::Tensor ints(const std::vector<int32_t>& values) { return at::tensor(values, at::kInt); }
float* data(const at::Tensor& tensor) { return tensor.mutable_data_ptr<float>(); }

// `found`, in any type and anywhere, is near `expected` on the host.
void expect_close(const at::Tensor& found, const at::Tensor& expected, double tolerance = 1e-5) {
  ASSERT_EQ(found.sizes(), expected.sizes());
  const double largest = expected.abs().max().item<double>();
  const double difference =
      (found.cpu().to(at::kDouble) - expected.to(at::kDouble)).abs().max().item<double>();
  EXPECT_LE(difference, tolerance * largest);
}

class Kernels : public ::testing::TestWithParam<at::ScalarType> {
 protected:
  void SetUp() override { at::manual_seed(7); }
  // Random numbers that the type under test holds exactly: f32 on the host.
  at::Tensor random(at::IntArrayRef shape) const {
    return at::randn(shape).to(GetParam()).to(at::kFloat);
  }
  at::Tensor typed(const at::Tensor& tensor) const { return on(tensor.to(GetParam())); }
  double tolerance() const { return GetParam() == at::kFloat ? 1e-5 : 1e-2; }
};
INSTANTIATE_TEST_SUITE_P(Types, Kernels, ::testing::Values(at::kFloat, at::kBFloat16));

TEST_P(Kernels, RmsNorm) {
  const int64_t T = 131, D = 37;
  const at::Tensor x = random({T, D}), w = random({D}), dy = random({T, D}), dx = random({T, D});
  at::Tensor y = at::empty({T, D}), reciprocal = at::empty({T}), dw = at::randn({D});
  const at::Tensor found_y = typed(y), found_r = on(reciprocal.clone()), found_dx = typed(dx),
                   found_dw = on(dw.clone());
  rms_norm(T, D, data(x), data(w), 1e-6f, data(y), data(reciprocal));
  device::rms_norm(typed(x), typed(w), 1e-6f, found_y, found_r);
  expect_close(found_y, y, tolerance());
  expect_close(found_r, reciprocal);
  std::vector<float> partial;
  rms_norm_backward(T, D, data(x), data(w), data(reciprocal), data(dy), data(dx), data(dw),
                    &partial);
  device::rms_norm_backward(typed(x), typed(w), found_r, typed(dy), found_dx, found_dw);
  expect_close(found_dx, dx, tolerance());
  expect_close(found_dw, dw);
}

TEST_P(Kernels, Rope) {
  const int64_t T = 29, H = 3, hd = 10, stride = 41;
  const RopeTable table = make_rope_table(50, hd, 10000, at::kCPU);
  const RopeTable there{on(table.cosines), on(table.sines)};
  const at::Tensor positions = at::randint(0, 50, {T}).to(at::kInt);
  for (const Rotation rotation : {Rotation::kForward, Rotation::kBackward}) {
    const at::Tensor x = random({T, stride}), found = typed(x);
    rotate(table, rotation, T, positions.const_data_ptr<int32_t>(), H, hd, stride, data(x));
    device::rotate(there, rotation, on(positions), H, hd, found);
    expect_close(found, x, tolerance());
  }
}

TEST_P(Kernels, SwiGluWithWeightsAndPadding) {
  const int64_t n = 23, F = 11;
  const at::Tensor hidden = random({n, 2 * F}), d_act = random({n, F}), weights = at::rand({40});
  std::vector<int32_t> slots;
  for (int32_t i = 0; i < n; ++i) slots.push_back(i % 5 == 3 ? -1 : (i * 7) % 40);
  at::Tensor act = at::zeros({n, F}), d_hidden = at::zeros({n, 2 * F}), d_weights = at::zeros({40});
  for (int64_t i = 0; i < n; ++i) {
    if (slots[i] < 0) continue;
    const at::Tensor gate = hidden[i].slice(0, 0, F), up = hidden[i].slice(0, F);
    const at::Tensor s = gate.sigmoid(), silu = gate * s, w = weights[slots[i]];
    act[i].copy_(w * silu * up);
    d_weights[slots[i]].copy_((d_act[i] * silu * up).sum());
    d_hidden[i].slice(0, 0, F).copy_(w * d_act[i] * up * s * (1 + gate * (1 - s)));
    d_hidden[i].slice(0, F).copy_(w * d_act[i] * silu);
  }
  const device::RowWeights rows{on(ints(slots)), on(weights)};
  const at::Tensor found_hidden = typed(hidden), found_act = typed(at::ones({n, F}));
  device::swiglu(found_hidden, rows, found_act);
  expect_close(found_act, act, tolerance());
  const at::Tensor found_d_weights = on(at::zeros({40})), again = typed(at::ones({n, F}));
  device::swiglu_backward(found_hidden, rows, typed(d_act), again, found_d_weights);
  expect_close(again, act, tolerance());
  expect_close(found_hidden, d_hidden, tolerance());
  expect_close(found_d_weights, d_weights);
}

TEST_P(Kernels, EmbeddingAddsRepeatedTokens) {
  const int64_t T = 67, V = 9, D = 5;
  const at::Tensor tokens = at::randint(0, V, {T}).to(at::kInt), table = random({V, D}),
                   dx = random({T, D}), d_table = at::randn({V, D});
  const at::Tensor found = typed(at::empty({T, D})), found_d = on(d_table.clone());
  device::embed(on(tokens), typed(table), found);
  expect_close(found, table.index_select(0, tokens.to(at::kLong)), 0);
  const auto [sorted, order] = at::sort(on(tokens), /*stable=*/true, 0, false);
  device::embed_backward(sorted, order, typed(dx), found_d);
  expect_close(found_d, d_table.index_add(0, tokens.to(at::kLong), dx), 1e-6);
}

TEST_P(Kernels, CrossEntropy) {
  const int64_t n = 19, V = 133;
  const float scale = 0.01f, z_weight = 0.1f;
  const at::Tensor logits = 3 * random({n, V});
  at::Tensor labels = at::randint(0, V, {n}).to(at::kInt);
  labels[4] = labels[18] = -100;
  const at::Tensor found = typed(logits), loss = on(at::empty({n})), z = on(at::empty({n}));
  const at::Tensor exact = found.cpu().to(at::kDouble);
  device::cross_entropy_and_gradient(found, on(labels), scale, z_weight, loss, z);
  const at::Tensor lse = exact.logsumexp(1);
  at::Tensor gradient = (exact - lse.unsqueeze(1)).exp() * (1 + 2 * z_weight * lse.unsqueeze(1));
  at::Tensor losses = lse.clone(), squares = lse.square();
  for (int64_t i = 0; i < n; ++i) {
    const int64_t label = labels[i].item<int64_t>();
    if (label < 0) {
      gradient[i].zero_();
      losses[i] = squares[i] = 0;
    } else {
      gradient[i][label] -= 1;
      losses[i] -= exact[i][label];
    }
  }
  expect_close(loss, losses, 1e-6);
  expect_close(z, squares, 1e-6);
  expect_close(found, scale * gradient, tolerance());
}

// The CPU path's attention over four spans, and the device path's by both of its names.
struct AttentionCase {
  int64_t H, hd, T = 240;
  at::Tensor ends = ints({0, 1, 9, 160, 240});
  at::Tensor out, lse, d_qkv;  // of the CPU path
  PlacedSlice batch;

  AttentionCase(int64_t heads, int64_t head_dim, const at::Tensor& qkv, const at::Tensor& d_out)
      : H(heads), hd(head_dim) {
    const int64_t D = H * hd;
    out = at::empty({T, D}), lse = at::empty({T, H}), d_qkv = at::empty({T, 3 * D});
    Scratch scratch;
    const AttentionShape shape{H, hd, ends.const_data_ptr<int32_t>(), 4};
    attention(shape, data(qkv), data(out), data(lse), &scratch);
    attention_backward(shape, data(qkv), data(out), data(lse), data(d_out), data(d_qkv), &scratch);
    TokenSpans spans{at::zeros({T}, at::kInt), at::zeros({T}, at::kInt)};
    for (int64_t span = 0; span < 4; ++span) {
      const int64_t begin = ends[span].item<int64_t>(), end = ends[span + 1].item<int64_t>();
      spans.begin.slice(0, begin, end).fill_(begin);
      spans.end.slice(0, begin, end).fill_(end);
    }
    batch.T = T;
    batch.attention_ends = on(ends);
    batch.attention_spans = {on(spans.begin), on(spans.end)};
    batch.longest_attention_span = 151;
  }
};

TEST_P(Kernels, PlainAttention) {
  const int64_t H = 3, hd = 6, T = 240;
  const at::Tensor qkv = random({T, 3 * H * hd}), d_out = random({T, H * hd});
  const AttentionCase c(H, hd, qkv, d_out);
  const at::Tensor found = typed(c.out), found_lse = on(c.lse), found_d = typed(c.d_qkv);
  device::plain_attention(c.batch.attention_spans, typed(qkv), found, found_lse);
  device::plain_attention_backward(c.batch.attention_spans, typed(qkv), found, found_lse,
                                   typed(d_out), found_d);
  expect_close(found, c.out, tolerance());
  expect_close(found_lse, c.lse);
  expect_close(found_d, c.d_qkv, 2 * tolerance());
}

// On a GPU in bf16 it is flash attention.
TEST_P(Kernels, Attention) {
  for (const int64_t hd : {16, 64, 128}) {
    const int64_t H = 2, T = 240;
    const at::Tensor qkv = random({T, 3 * H * hd}), d_out = random({T, H * hd});
    const AttentionCase c(H, hd, qkv, d_out);
    const AttentionKept kept = device::attention(c.batch, H, typed(qkv));
    expect_close(kept.out, c.out, tolerance());
    const at::Tensor d_qkv = device::attention_backward(c.batch, H, typed(qkv), kept, typed(d_out));
    expect_close(d_qkv, c.d_qkv, 2 * tolerance());
  }
}

TEST_P(Kernels, Rows) {
  const at::Tensor from = random({6, 5});
  const at::Tensor gathered = typed(at::ones({4, 5}));
  device::gather_rows(typed(from), on(ints({7, -1, 0, 5})), 2, gathered);
  expect_close(gathered, at::stack({from[3], at::zeros({5}), from[0], from[2]}), 0);
  const at::Tensor to = random({2, 5}), found = typed(to);
  const at::Tensor index = ints({1, -1, 4, 4, 0, -1}).view({3, 2});  // [k, n]: read transposed
  device::add_rows(typed(from), on(index).t(), /*onto=*/true, found);
  expect_close(found, at::stack({to[0] + from[1] + from[4] + from[0], to[1] + from[4]}),
               tolerance());
  device::add_rows(typed(from), on(index).t(), /*onto=*/false, found);
  expect_close(found, at::stack({from[1] + from[4] + from[0], from[4]}), tolerance());
}

// Uneven groups, one of them empty, padded to eight rows; rows behind the last are garbage.
TEST_P(Kernels, GroupedProductsAreOneForEachExpert) {
  const int64_t E = 4, in = 16, out = 24, Q = 48;
  const at::Tensor ends = ints({8, 8, 32, 40});
  const at::Tensor x = random({Q, in}), dy = random({Q, out});
  x.slice(0, 40).fill_(NAN);
  dy.slice(0, 40).fill_(NAN);
  // Matrices as experts lie in memory: at a distance, another matrix between them.
  const at::Tensor flat = random({E * (out * in + 64)});
  const at::Tensor w = typed(flat).as_strided({E, out, in}, {out * in + 64, in, 1});
  const at::Tensor host_w = flat.as_strided({E, out, in}, {out * in + 64, in, 1});
  const at::Tensor y = device::grouped_linear(typed(x), w, on(ends)).cpu();
  const at::Tensor dx = device::grouped_linear_input_gradient(typed(dy), w, on(ends)).cpu();
  const at::Tensor dw = on(at::ones({E, out, in}));
  device::add_grouped_weight_gradient(dw, /*onto=*/true, typed(dy), typed(x), on(ends));
  // With a hole behind each matrix, as in memory, and what stood there before overwritten.
  const at::Tensor fresh =
      on(at::full({E * (out * in + 64)}, NAN)).as_strided({E, out, in}, {out * in + 64, in, 1});
  device::add_grouped_weight_gradient(fresh, /*onto=*/false, typed(dy), typed(x), on(ends));
  int64_t begin = 0;
  for (int64_t e = 0; e < E; ++e) {
    const int64_t end = ends[e].item<int64_t>();
    const at::Tensor xs = x.slice(0, begin, end), dys = dy.slice(0, begin, end);
    if (end > begin) {
      expect_close(y.slice(0, begin, end), xs.mm(host_w[e].t()), tolerance());
      expect_close(dx.slice(0, begin, end), dys.mm(host_w[e]), tolerance());
    }
    expect_close(dw[e], 1 + dys.t().mm(xs), tolerance());
    expect_close(fresh[e], dys.t().mm(xs), tolerance());
    begin = end;
  }
}

Spans spans_of(const std::vector<int32_t>& ends) {
  const auto N = static_cast<int64_t>(ends.size()) - 1;
  const std::vector<Piece> pieces = pieces_of(ends.data(), N);
  std::vector<int32_t> span_of, piece_ends = {0}, first = {0};
  for (const Piece& piece : pieces) {
    span_of.insert(span_of.end(), piece.end - piece.begin, static_cast<int32_t>(piece.span));
    piece_ends.push_back(static_cast<int32_t>(piece.end));
    if (piece.end == ends[piece.span + 1])
      first.push_back(static_cast<int32_t>(piece_ends.size()) - 1);
  }
  return {on(ints(ends)),
          on(ints(span_of)),
          on(ints(piece_ends)),
          on(ints(first)),
          N,
          static_cast<int64_t>(pieces.size())};
}

TEST(RouterKernels, PoolsAreTheCpuPathsAndTiesKeepTheLowerIndex) {
  const int64_t N = 9, E = 33;
  at::manual_seed(3);
  // Few different scores, so that ties are many.
  const at::Tensor q = at::randint(0, 6, {N, E}).to(at::kDouble);
  const auto* values = q.const_data_ptr<double>();
  for (const PoolPolicy::Kind kind : {PoolPolicy::Kind::kRange, PoolPolicy::Kind::kTopP}) {
    PoolPolicy policy;
    policy.kind = kind;
    policy.min = 2;
    policy.top_p = 0.3;
    std::vector<int64_t> sizes;
    for (int64_t n = 0; n < N; ++n) sizes.push_back(2 + 5 * n);  // the last above E
    const at::Tensor found_sizes = on(at::tensor(sizes, at::kLong).to(at::kInt));
    const at::Tensor pools = on(at::empty({N, E}, at::kByte));
    device::choose_pools(on(q), policy, found_sizes, on(at::empty({N, E}, at::kInt)), pools);
    const std::vector<uint8_t> expected =
        choose_pools({std::vector<double>(values, values + N * E), {}}, E, policy, &sizes);
    const at::Tensor found = pools.cpu();
    EXPECT_TRUE(std::equal(expected.begin(), expected.end(), found.const_data_ptr<uint8_t>()));
    for (int64_t n = 0; n < N && kind == PoolPolicy::Kind::kTopP; ++n) {
      EXPECT_EQ(found_sizes[n].item<int64_t>(), sizes[n]);
    }
  }
}

// A run that diverged is stopped at the step's end: until then nothing may be written astray.
TEST(RouterKernels, ScoresThatAreNoNumbersStillMakePools) {
  const double nan = std::nan("");
  const at::Tensor q = at::tensor({nan, nan, nan, nan, 1.0, nan, INFINITY, nan}, at::kDouble);
  const at::Tensor ranked = on(at::full({2, 4}, 1 << 20, at::kInt));
  const at::Tensor pools = on(at::zeros({2, 4}, at::kByte));
  device::choose_pools(on(q.view({2, 4})), {}, on(ints({2, 3})), ranked, pools);
  EXPECT_TRUE(at::equal(ranked.cpu(), ints({0, 1, 2, 3, 2, 0, 1, 3}).view({2, 4})));
  EXPECT_TRUE(at::equal(pools.cpu(), at::tensor({1, 1, 0, 0, 1, 1, 1, 0}, at::kByte).view({2, 4})));
}

TEST(RouterKernels, TopKTiesKeepTheLowerIndexAndSmallPoolsLeaveSlotsUnused) {
  const Spans spans = spans_of({0, 1, 3});
  const at::Tensor logits = at::tensor({1.0f, 3.0f, 3.0f, 0.0f, 3.0f,  //
                                        0.0f, 0.0f, 0.0f, 0.0f, 0.0f,  //
                                        5.0f, 1.0f, 2.0f, 2.0f, 9.0f})
                                .view({3, 5});
  const at::Tensor pools = at::tensor({1, 1, 1, 1, 1, 0, 1, 0, 1, 0}, at::kByte).view({2, 5});
  const at::Tensor experts = on(at::empty({3, 3}, at::kInt)), weights = on(at::empty({3, 3}));
  device::choose_experts(on(logits), on(at::zeros({3})), spans, on(pools), {}, experts, weights);
  EXPECT_TRUE(at::equal(experts.cpu(), ints({1, 2, 4, 1, 3, -1, 3, 1, -1}).view({3, 3})));
  EXPECT_EQ(weights[2][2].item<float>(), 0);
  expect_close(weights[2][0], at::exp(at::scalar_tensor(2.0)), 1e-6);
}

TEST(RouterKernels, ABiasChoosesAndDoesNotWeigh) {
  const Spans spans = spans_of({0, 2});
  const at::Tensor logits =
      at::tensor({1.0f, 2.0f, 3.0f, 4.0f, 4.0f, 3.0f, 2.0f, 1.0f}).view({2, 4});
  const at::Tensor pools = at::tensor({1, 1, 1, 0}, at::kByte).view({1, 4});
  const at::Tensor bias = at::tensor({-200.0f, -20.0f, -100.0f, 0.0f});
  const at::Tensor experts = on(at::empty({2, 2}, at::kInt)), weights = on(at::empty({2, 2}));
  device::choose_experts(on(logits), on(at::zeros({2})), spans, on(pools), on(bias), experts,
                         weights);
  EXPECT_TRUE(at::equal(experts.cpu(), ints({1, 2, 1, 2}).view({2, 2})));
  expect_close(weights.view({-1}), at::exp(at::tensor({2.0, 3.0, 3.0, 2.0})), 1e-6);
}

TEST(RouterKernels, SumsOverPiecesDocumentsAndExperts) {
  at::manual_seed(5);
  const std::vector<int32_t> ends = {0, 130, 131, 300};
  const int64_t T = 300, E = 7, K = 2;
  const Spans spans = spans_of(ends);
  ASSERT_EQ(spans.pieces, 3 + 1 + 3);
  const at::Tensor logits = at::randn({T, E});
  const at::Tensor lse = on(at::empty({T})), entropy = on(at::empty({T}));
  device::softmax_statistics(on(logits), spans, {}, lse, entropy);
  expect_close(lse, logits.logsumexp(1), 1e-6);
  const at::Tensor p = logits.softmax(1);
  expect_close(entropy, -(p * p.log()).sum(1), 1e-6);
  const at::Tensor sums = on(at::empty({spans.pieces, E}));
  device::sum_scores(on(logits), lse, spans, {}, {}, sums);
  const at::Tensor q = on(at::empty({3, E}, at::kDouble)), all = on(at::empty({E}, at::kDouble));
  device::sum_documents(sums, spans, q);
  device::sum_pieces(sums, all);
  const at::Tensor means = on(at::empty({3}, at::kDouble));
  device::document_means(entropy, spans, means);
  for (int64_t d = 0; d < 3; ++d) {
    expect_close(q[d], p.slice(0, ends[d], ends[d + 1]).sum(0), 1e-6);
    expect_close(means[d], entropy.cpu().slice(0, ends[d], ends[d + 1]).mean(), 1e-6);
  }
  expect_close(all, p.sum(0), 1e-6);
  const at::Tensor experts = at::randint(-1, E, {T, K}).to(at::kInt);
  const at::Tensor counts = on(at::empty({E}, at::kLong));
  const at::Tensor partial = on(at::empty({spans.pieces, E}, at::kInt));
  device::count_choices(on(experts), spans, {}, partial, counts);
  for (int64_t e = 0; e < E; ++e) {
    EXPECT_EQ(counts[e].item<int64_t>(), (experts == e).sum().item<int64_t>());
  }
  // Of tokens with a label.
  const at::Tensor labels = at::randint(-1, 1, {T}).to(at::kInt);
  const at::Tensor labelled = labels.ge(0).nonzero().view({-1});
  device::sum_scores(on(logits), lse, spans, {}, on(labels), sums);
  device::sum_pieces(sums, all);
  expect_close(all, p.index_select(0, labelled).sum(0), 1e-6);
  device::count_choices(on(experts), spans, on(labels), partial, counts);
  for (int64_t e = 0; e < E; ++e) {
    EXPECT_EQ(counts[e].item<int64_t>(),
              (experts.index_select(0, labelled) == e).sum().item<int64_t>());
  }
}

// Every slot stands once in its expert's group; groups are padded to eight and in order.
TEST(ExchangePlan, OfOneRankSortsAndPads) {
  at::manual_seed(9);
  const int64_t T = 37, K = 3, E = 5;
  const at::Tensor experts = at::randint(-1, E - 1, {T, K}).to(at::kInt);  // none for the last
  const auto self = self_communicator();
  const device::ExchangePlan plan =
      device::plan_exchange(*self, {{E, 1, {}}, {}}, on(experts), on(at::rand({T, K})));
  const at::Tensor ends = plan.ends.cpu(), slots = plan.slot_of_pair.cpu(),
                   pairs = plan.pair_of_slot.cpu();
  EXPECT_EQ(ends.size(0), E);
  EXPECT_EQ(plan.pairs % device::kGroupMultiple, 0);
  EXPECT_LE(ends[E - 1].item<int64_t>(), plan.pairs);
  int64_t begin = 0;
  int64_t used = 0;
  for (int64_t e = 0; e < E; ++e) {
    const int64_t end = ends[e].item<int64_t>();
    const int64_t count = (experts == e).sum().item<int64_t>();
    EXPECT_EQ(end - begin, (count + 7) / 8 * 8);
    for (int64_t i = begin; i < end; ++i) {
      const int64_t slot = slots[i].item<int64_t>();
      EXPECT_EQ(slot >= 0, i - begin < count);
      if (slot < 0) continue;
      EXPECT_EQ(experts.view({-1})[slot].item<int64_t>(), e);
      EXPECT_EQ(pairs.view({-1})[slot].item<int64_t>(), i);
      ++used;
    }
    begin = end;
  }
  EXPECT_EQ(used, (experts >= 0).sum().item<int64_t>());
  EXPECT_EQ((pairs < 0).sum().item<int64_t>(), (experts < 0).sum().item<int64_t>());
}

TEST(AdamWKernel, IsTheHostsOverSeveralSteps) {
  at::manual_seed(11);
  const int64_t n = 5003;
  const auto host = host_backend();
  const auto there = device::make_backend(device_under_test(), at::kBFloat16);
  const at::Tensor parameter = at::randn({n}), first = at::zeros({n}), second = at::zeros({n});
  const at::Tensor master = on(parameter.clone()), m = on(at::zeros({n})), v = on(at::zeros({n})),
                   bf16 = on(at::zeros({n}, at::kBFloat16));
  for (int64_t step = 1; step <= 3; ++step) {
    const at::Tensor gradient = at::randn({n}), loss = at::ones({1}, at::kDouble);
    const at::Tensor squares =
        there->sum_of_squares({on(gradient.slice(0, 0, 4097)), on(gradient.slice(0, 4097))});
    const at::Tensor expected = host->sum_of_squares({gradient});
    expect_close(squares, expected, 1e-12);
    at::Tensor control, control_there;
    host->clip_control(loss, expected, 2.0, &control);
    there->clip_control(on(loss), squares, 2.0, &control_there);
    expect_close(control_there, control, 1e-7);
    const AdamWFactors factors = adamw_factors({}, 0.1, step, /*decayed=*/true);
    host->adamw(factors, control, gradient, parameter, first, second, {});
    there->adamw(factors, control_there, on(gradient), master, m, v, bf16);
    expect_close(master, parameter, 1e-6);
    expect_close(m, first, 1e-6);
    expect_close(v, second, 1e-6);
    EXPECT_TRUE(at::equal(bf16, master.to(at::kBFloat16)));
  }
  // Not finite: nothing moves.
  const at::Tensor before = master.clone();
  for (const auto& [loss, squares] : {std::pair(INFINITY, 1.0f), std::pair(NAN, 1.0f),
                                      std::pair(1.0f, INFINITY), std::pair(1.0f, NAN)}) {
    at::Tensor control;
    there->clip_control(on(at::full({1}, loss, at::kDouble)),
                        on(at::full({1}, squares, at::kDouble)), 1.0, &control);
    EXPECT_EQ(control[1].item<float>(), 0);
    there->adamw({0.9f, 0.95f, 1e-8f, 1, 1, 1}, control, on(at::ones({n})), master, m, v, bf16);
    EXPECT_TRUE(at::equal(master, before));
  }
}

}  // namespace
}  // namespace emo
