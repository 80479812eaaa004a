// The router's sums over tokens, documents and experts. Shapes: logits f32 [T, E], pools u8 [N, E].
// See model/router.h for what the quantities are.
#pragma once

#include <ATen/core/Tensor.h>

#include "model/spans.h"

namespace emo::device {

// Of each token's softmax over its document's pool (`pools` undefined: over all experts): logsumexp
// f32 [T] and entropy f32 [T] (nats).
void softmax_statistics(const at::Tensor& logits, const Spans& spans, const at::Tensor& pools,
                        const at::Tensor& logsumexp, const at::Tensor& entropy);

// sums f32 [pieces, E]: over each piece's tokens, of exp(logit - logsumexp) inside the pool
// (`pools` undefined: of all), of tokens whose label is not negative (labels i32 [T]; undefined: of
// all).
void sum_scores(const at::Tensor& logits, const at::Tensor& logsumexp, const Spans& spans,
                const at::Tensor& pools, const at::Tensor& labels, const at::Tensor& sums);

// From sums f32 [pieces, E]: of each document f64 [N, E], and of all f64 [E].
void sum_documents(const at::Tensor& sums, const Spans& spans, const at::Tensor& of_documents);
void sum_pieces(const at::Tensor& sums, const at::Tensor& of_all);

// means f64 [N]: over each document's tokens of values f32 [T].
void document_means(const at::Tensor& values, const Spans& spans, const at::Tensor& means);

// counts i64 [E]: tokens that chose e, from experts i32 [T, K]; labels as above. `partial` i32
// [pieces, E]: those of each piece.
void count_choices(const at::Tensor& experts, const Spans& spans, const at::Tensor& labels,
                   const at::Tensor& partial, const at::Tensor& counts);

// From partial i32 [pieces, E]: of each document i32 [N, E].
void count_documents(const at::Tensor& partial, const Spans& spans, const at::Tensor& counts);

}  // namespace emo::device
