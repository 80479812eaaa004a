#include "model/device/kernels/router_scores.h"

#include <cmath>

#include "model/device/kernel.h"

namespace emo::device {

void softmax_statistics(const at::Tensor& logits, const Spans& spans, const at::Tensor& pools,
                        const at::Tensor& logsumexp, const at::Tensor& entropy) {
  const int64_t E = logits.size(1);
  const auto* z_of = logits.const_data_ptr<float>();
  const auto* span_of = spans.span_of.const_data_ptr<int32_t>();
  const uint8_t* pool_of = data_or_null<uint8_t>(pools);
  auto* lse = logsumexp.mutable_data_ptr<float>();
  auto* entropies = entropy.mutable_data_ptr<float>();
  for_each_row(logits.device(), logits.size(0), [=] EMO_HOST_DEVICE(int64_t t, Lanes lanes) {
    const float* z = z_of + t * E;
    const uint8_t* pool = pool_of == nullptr ? nullptr : pool_of + span_of[t] * E;
    float largest = -INFINITY;
    for (int64_t e = lanes.index(); e < E; e += lanes.count()) {
      if (pool == nullptr || pool[e] != 0) largest = fmaxf(largest, z[e]);
    }
    largest = lanes.max(largest);
    float total = 0;
    float weighted = 0;
    for (int64_t e = lanes.index(); e < E; e += lanes.count()) {
      if (pool != nullptr && pool[e] == 0) continue;
      const float p = expf(z[e] - largest);
      total += p;
      weighted += p * (z[e] - largest);
    }
    total = lanes.sum(total);
    weighted = lanes.sum(weighted);
    if (lanes.index() != 0) return;
    const float log_total = logf(total);
    lse[t] = largest + log_total;
    entropies[t] = log_total - weighted / total;
  });
}

void sum_scores(const at::Tensor& logits, const at::Tensor& logsumexp, const Spans& spans,
                const at::Tensor& pools, const at::Tensor& labels, const at::Tensor& sums) {
  const int64_t E = logits.size(1);
  const auto* z = logits.const_data_ptr<float>();
  const auto* lse = logsumexp.const_data_ptr<float>();
  const auto* span_of = spans.span_of.const_data_ptr<int32_t>();
  const auto* ends = spans.piece_ends.const_data_ptr<int32_t>();
  const uint8_t* pool = data_or_null<uint8_t>(pools);
  const int32_t* label = data_or_null<int32_t>(labels);
  auto* sum_of = sums.mutable_data_ptr<float>();
  for_each(logits.device(), spans.pieces * E, [=] EMO_HOST_DEVICE(int64_t i) {
    const int64_t piece = i / E;
    const int64_t e = i % E;
    const int64_t begin = ends[piece];
    float sum = 0;
    if (pool == nullptr || pool[span_of[begin] * E + e] != 0) {
      for (int64_t t = begin; t < ends[piece + 1]; ++t) {
        if (label == nullptr || label[t] >= 0) sum += expf(z[t * E + e] - lse[t]);
      }
    }
    sum_of[i] = sum;
  });
}

void sum_documents(const at::Tensor& sums, const Spans& spans, const at::Tensor& of_documents) {
  const int64_t E = sums.size(1);
  const auto* sum_of = sums.const_data_ptr<float>();
  const auto* first = spans.first_piece.const_data_ptr<int32_t>();
  auto* q = of_documents.mutable_data_ptr<double>();
  for_each(sums.device(), spans.N * E, [=] EMO_HOST_DEVICE(int64_t i) {
    const int64_t span = i / E;
    double sum = 0;
    for (int64_t piece = first[span]; piece < first[span + 1]; ++piece) {
      sum += sum_of[piece * E + i % E];
    }
    q[i] = sum;
  });
}

void sum_pieces(const at::Tensor& sums, const at::Tensor& of_all) {
  const int64_t pieces = sums.size(0);
  const int64_t E = sums.size(1);
  const auto* sum_of = sums.const_data_ptr<float>();
  auto* all = of_all.mutable_data_ptr<double>();
  for_each_row(sums.device(), E, [=] EMO_HOST_DEVICE(int64_t e, Lanes lanes) {
    double sum = 0;
    for (int64_t piece = lanes.index(); piece < pieces; piece += lanes.count()) {
      sum += sum_of[piece * E + e];
    }
    sum = lanes.sum(sum);
    if (lanes.index() == 0) all[e] = sum;
  });
}

void document_means(const at::Tensor& values, const Spans& spans, const at::Tensor& means) {
  const auto* value = values.const_data_ptr<float>();
  const auto* ends = spans.ends.const_data_ptr<int32_t>();
  auto* mean = means.mutable_data_ptr<double>();
  for_each_row(values.device(), spans.N, [=] EMO_HOST_DEVICE(int64_t span, Lanes lanes) {
    double sum = 0;
    for (int64_t t = ends[span] + lanes.index(); t < ends[span + 1]; t += lanes.count()) {
      sum += value[t];
    }
    sum = lanes.sum(sum);
    if (lanes.index() == 0) mean[span] = sum / static_cast<double>(ends[span + 1] - ends[span]);
  });
}

void count_choices(const at::Tensor& experts, const Spans& spans, const at::Tensor& labels,
                   const at::Tensor& partial, const at::Tensor& counts) {
  const int64_t K = experts.size(1);
  const int64_t E = counts.size(0);
  const int64_t pieces = spans.pieces;
  const auto* chosen = experts.const_data_ptr<int32_t>();
  const int32_t* label = data_or_null<int32_t>(labels);
  const auto* ends = spans.piece_ends.const_data_ptr<int32_t>();
  auto* count_of = partial.mutable_data_ptr<int32_t>();
  auto* all = counts.mutable_data_ptr<int64_t>();
  for_each(experts.device(), pieces * E, [=] EMO_HOST_DEVICE(int64_t i) {
    const int64_t piece = i / E;
    int32_t count = 0;
    for (int64_t slot = ends[piece] * K; slot < ends[piece + 1] * K; ++slot) {
      const bool counts_here = label == nullptr || label[slot / K] >= 0;
      count += counts_here && chosen[slot] == static_cast<int32_t>(i % E) ? 1 : 0;
    }
    count_of[i] = count;
  });
  for_each_row(experts.device(), E, [=] EMO_HOST_DEVICE(int64_t e, Lanes lanes) {
    long long count = 0;
    for (int64_t piece = lanes.index(); piece < pieces; piece += lanes.count()) {
      count += count_of[piece * E + e];
    }
    count = lanes.sum(count);
    if (lanes.index() == 0) all[e] = count;
  });
}

void count_documents(const at::Tensor& partial, const Spans& spans, const at::Tensor& counts) {
  const int64_t E = partial.size(1);
  const auto* of_piece = partial.const_data_ptr<int32_t>();
  const auto* first = spans.first_piece.const_data_ptr<int32_t>();
  auto* of_document = counts.mutable_data_ptr<int32_t>();
  for_each(partial.device(), spans.N * E, [=] EMO_HOST_DEVICE(int64_t i) {
    const int64_t span = i / E;
    int32_t count = 0;
    for (int64_t piece = first[span]; piece < first[span + 1]; ++piece) {
      count += of_piece[piece * E + i % E];
    }
    of_document[i] = count;
  });
}

}  // namespace emo::device
