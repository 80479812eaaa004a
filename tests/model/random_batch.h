// Random documents in rows, for tests.
#pragma once

#include <algorithm>
#include <cstdlib>
#include <random>
#include <vector>

#include "data/rows/batch.h"
#include "model/transformer.h"

namespace emo {

// `rows` rows of S tokens; cuts are drawn so that a document is `mean_length` tokens long on
// average. A mean of 1 gives one-token documents only, one of 0 whole rows.
inline Batch random_batch(int64_t rows, int64_t S, int64_t vocab, double mean_length, uint64_t seed,
                          int64_t first_sequence = 0) {
  std::mt19937_64 random(seed);
  Batch batch;
  batch.rows = rows;
  batch.sequence_length = S;
  for (int64_t t = 0; t < rows * S; ++t) {
    batch.tokens.push_back(static_cast<int32_t>(random() % static_cast<uint64_t>(vocab)));
    const bool cut = mean_length > 0 && static_cast<double>(random() % 10000) < 10000 / mean_length;
    if (cut || (t + 1) % S == 0) batch.document_ends.push_back(static_cast<int32_t>(t + 1));
  }
  batch.labels = next_token_labels(batch.tokens, S);
  batch.attention_ends = batch.routing_ends = batch.document_ends;
  for (int64_t row = 0; row < rows; ++row) batch.sequence_index.push_back(first_sequence + row);
  batch.filtered.assign(rows, 0);
  return batch;
}

// As of questions with answers: the first two thirds of each document are not predicted.
inline void predict_answers_alone(Batch* batch) {
  int32_t begin = 0;
  for (const int32_t end : batch->document_ends) {
    std::fill_n(batch->labels.begin() + begin, (end - begin) * 2 / 3, kIgnoredLabel);
    begin = end;
  }
}

// A factor of all embeddings, EMO_TEST_SCALE, such as 1.0000001: tests/parallel/moved_rounding.sh
// moves the rounding of all that tests compute with it.
inline float moved_scale() {
  const char* moved = std::getenv("EMO_TEST_SCALE");
  return moved != nullptr ? std::strtof(moved, nullptr) : 1.0f;
}

// Wide random parameters, wherever the model computes, so that few choices are near ties
// (tests/model/clear_routing.h finds those that are) and every gradient is far from zero. `moved`:
// each number is off by a random part of itself up to that, as rounding moves what is computed.
inline void fill_random(const Model& model, uint64_t seed, float moved = 0) {
  const FlatBuffers parameters = make_buffers(model.layout);  // on the host
  for (const ParameterInfo& p : model.layout.parameters) {
    uint64_t hash = seed;
    for (const char c : p.name) hash = hash * 1099511628211u + static_cast<uint8_t>(c);
    std::mt19937_64 random(hash);
    std::normal_distribution<float> normal(0, 1);
    float* data = parameter_data(p, parameters);
    const bool is_norm = p.shape.size() == 1;
    const bool is_input = p.name == "model.embed_tokens.weight";
    const float scale =
        1.5f / std::sqrt(static_cast<float>(p.shape.back())) * (is_input ? moved_scale() : 1.0f);
    for (int64_t i = 0; i < p.numel(); ++i) {
      data[i] = is_norm ? 1 + 0.1f * normal(random) : scale * normal(random);
    }
    std::uniform_real_distribution<float> part(1 - moved, 1 + moved);
    for (int64_t i = 0; moved > 0 && i < p.numel(); ++i) data[i] *= part(random);
  }
  model.parameters.dense.copy_(parameters.dense);
  model.parameters.experts.copy_(parameters.experts);
}

}  // namespace emo
