#include "eval/perplexity.h"

#include <ATen/ops/from_blob.h>

#include <algorithm>
#include <cmath>
#include <numbers>

#include "data/random_bits.h"
#include "train/agreement.h"
#include "train/batch_tensors.h"

namespace emo {
namespace {

// A piece of a document: tokens [begin, end) of a shard, of which all but the first are predicted.
struct DocumentPiece {
  int64_t shard, begin, end;
  int64_t number;   // of the document among all: its id for pool sizes
  int32_t ordinal;  // of the piece in the document
  int32_t source;
};

using PieceBatch = std::vector<DocumentPiece>;

// Which documents, counted over all shards, are of the chosen sources; of these as many as asked
// for, each equally likely.
std::vector<uint8_t> choose_documents(const TokenDataset& data, const EvalOptions& options) {
  std::vector<uint8_t> chosen;
  std::vector<int64_t> numbers;  // of the candidates
  for (int64_t shard = 0; shard < data.num_shards(); ++shard) {
    for (int64_t d = 0; d < data.documents(shard); ++d) {
      const auto source = static_cast<int32_t>(data.index(shard)[d].source);
      const bool candidate = options.sources.empty() ||
                             std::find(options.sources.begin(), options.sources.end(), source) !=
                                 options.sources.end();
      if (candidate) numbers.push_back(static_cast<int64_t>(chosen.size()));
      chosen.push_back(candidate ? 1 : 0);
    }
  }
  if (options.documents == 0 || options.documents >= static_cast<int64_t>(numbers.size())) {
    return chosen;
  }
  const auto key = [&](int64_t number) {
    return random_bits(options.document_seed, 0, static_cast<uint64_t>(number));
  };
  std::nth_element(
      numbers.begin(), numbers.begin() + options.documents, numbers.end(),
      [&](int64_t a, int64_t b) { return std::pair(key(a), a) < std::pair(key(b), b); });
  for (size_t i = options.documents; i < numbers.size(); ++i) chosen[numbers[i]] = 0;
  return chosen;
}

// All pieces of the chosen documents; adds up what does not depend on the model.
std::vector<DocumentPiece> cut_documents(const TokenDataset& data, const EvalOptions& options,
                                         std::vector<SourceLoss>* sources) {
  const int64_t S = options.sequence_length;
  const std::vector<uint8_t> documents = choose_documents(data, options);
  std::vector<DocumentPiece> pieces;
  int64_t number = 0;
  for (int64_t shard = 0; shard < data.num_shards(); ++shard) {
    int64_t begin = 0;
    for (int64_t d = 0; d < data.documents(shard); ++d, ++number) {
      const DocumentRecord& record = data.index(shard)[d];
      const auto end = static_cast<int64_t>(record.end);
      const auto source = static_cast<int32_t>(record.source);
      const bool chosen = documents[number] != 0;
      int32_t ordinal = 0;
      for (int64_t at = begin; chosen && (at + 1 < end || ordinal == 0); ++ordinal) {
        const int64_t piece_end = std::min(at + S, end);
        pieces.push_back({shard, at, piece_end, number, ordinal, source});
        at = piece_end - 1;
      }
      if (chosen) {
        (*sources)[source].bytes += static_cast<double>(record.bytes);
        (*sources)[source].documents += 1;
      }
      begin = end;
    }
  }
  return pieces;
}

// Deals pieces, in order, into batches of about tokens_per_batch, as even as pieces go and so
// many that each rank gets the same number.
std::vector<PieceBatch> deal_batches(const std::vector<DocumentPiece>& pieces,
                                     int64_t tokens_per_batch, int64_t ranks) {
  int64_t tokens = 0;
  for (const DocumentPiece& piece : pieces) tokens += piece.end - piece.begin;
  if (tokens == 0) return {};
  const int64_t rounds = (tokens + ranks * tokens_per_batch - 1) / (ranks * tokens_per_batch);
  std::vector<PieceBatch> batches(rounds * ranks);
  int64_t begin = 0;
  for (const DocumentPiece& piece : pieces) {
    const int64_t length = piece.end - piece.begin;
    // The batch in which the piece's middle lies.
    batches[(2 * begin + length) * rounds * ranks / (2 * tokens)].push_back(piece);
    begin += length;
  }
  return batches;
}

// A batch as one row, each piece a span of its own.
absl::StatusOr<Batch> load_pieces(const TokenDataset& data, const PieceBatch& pieces) {
  Batch batch;
  batch.rows = pieces.empty() ? 0 : 1;
  for (const DocumentPiece& piece : pieces) {
    const size_t at = batch.tokens.size();
    const int64_t length = piece.end - piece.begin;
    batch.tokens.resize(at + length);
    absl::Status status = data.read(piece.shard, piece.begin, length, batch.tokens.data() + at);
    if (!status.ok()) return status;
    for (int64_t i = 0; i + 1 < length; ++i) batch.labels.push_back(batch.tokens[at + i + 1]);
    batch.labels.push_back(kIgnoredLabel);
    batch.document_ends.push_back(static_cast<int32_t>(batch.tokens.size()));
  }
  batch.sequence_length = std::max<int64_t>(1, static_cast<int64_t>(batch.tokens.size()));
  batch.attention_ends = batch.routing_ends = batch.document_ends;
  batch.sequence_index.assign(batch.rows, 0);
  batch.filtered.assign(batch.rows, 0);
  return batch;
}

// Positions start anew with each piece, and pool sizes belong to the document, whatever the batch.
void set_document_ids(const PieceBatch& pieces, MicroBatch* tensors) {
  auto* positions = tensors->positions.mutable_data_ptr<int32_t>();
  auto* sequence = tensors->sequence_index.mutable_data_ptr<int64_t>();
  auto* ordinal = tensors->ordinal.mutable_data_ptr<int32_t>();
  for (size_t i = 0; i < pieces.size(); ++i) {
    for (int64_t p = 0; p < pieces[i].end - pieces[i].begin; ++p)
      *positions++ = static_cast<int32_t>(p);
    sequence[i] = pieces[i].number;
    ordinal[i] = pieces[i].ordinal;
  }
}

void all_reduce_result(Communicator& world, EvalResult* result) {
  std::vector<double*> numbers;  // what was counted from this rank's own documents only
  for (SourceLoss& source : result->sources) {
    numbers.push_back(&source.loss);
    numbers.push_back(&source.predicted);
  }
  for (std::vector<double>& layer : result->router_probability) {
    for (double& sum : layer) numbers.push_back(&sum);
  }
  std::vector<double> flat;
  for (const double* number : numbers) flat.push_back(*number);
  world.all_reduce(at::from_blob(flat.data(), {static_cast<int64_t>(flat.size())}, at::kDouble),
                   ReduceOp::kSum);
  for (size_t i = 0; i < flat.size(); ++i) *numbers[i] = flat[i];
}

}  // namespace

double SourceLoss::perplexity() const { return std::exp(mean()); }
double SourceLoss::bits_per_byte() const { return loss / std::numbers::ln2 / bytes; }

SourceLoss total(const std::vector<SourceLoss>& sources) {
  SourceLoss sum;
  for (const SourceLoss& source : sources) {
    sum.loss += source.loss;
    sum.predicted += source.predicted;
    sum.bytes += source.bytes;
    sum.documents += source.documents;
  }
  return sum;
}

absl::StatusOr<EvalResult> evaluate(const Model& model, const Mesh& mesh, const TokenDataset& data,
                                    const EvalOptions& options, PassMemory* memory) {
  memory->slices.resize(1);
  Activations* activations = &memory->slices[0];
  const ModelConfig& config = model.config;
  EvalResult result;
  result.sources.resize(data.info().sources.size());
  const std::vector<PieceBatch> batches = deal_batches(
      cut_documents(data, options, &result.sources), options.tokens_per_batch, mesh.world->size());
  if (options.want_probability) {
    result.router_probability.assign(config.n_layers,
                                     std::vector<double>(model.config.routed_experts()));
  }
  PassOptions pass;
  pass.ep = mesh.ep.get();
  pass.seed = options.seed;
  pass.pool = options.pool;
  pass.want_probability = options.want_probability;
  pass.routed_off = options.routed_off;
  pass.subsets = options.subsets;
  pass.recompute =
      Recompute::kBlock;  // no backward pass: keeps inputs of blocks and routing, no more
  const RopeTable rope(options.sequence_length, config.head_dim(), config.rope_theta);
  std::vector<float> token_loss;

  for (size_t first = 0; first < batches.size(); first += mesh.world->size()) {
    const PieceBatch& pieces = batches[first + mesh.world->rank()];  // may be empty
    absl::StatusOr<Batch> batch = load_pieces(data, pieces);
    absl::Status status = agree(*mesh.world, batch.status());
    if (!status.ok()) return status;
    MicroBatch tensors = to_tensors(*batch);
    set_document_ids(pieces, &tensors);
    forward(model, rope, tensors, pass, activations, &memory->buffers);
    if (options.observe) options.observe(tensors, *activations);
    const int64_t T = tensors.num_tokens();
    token_loss.resize(T);
    lm_loss(model.weights.head, T, activations->normalised.const_data_ptr<float>(),
            tensors.labels.const_data_ptr<int32_t>(), nullptr, token_loss.data(),
            &memory->buffers.block.feed_forward.scratch);
    const float* loss = token_loss.data();
    for (const DocumentPiece& piece : pieces) {
      SourceLoss& source = result.sources[piece.source];
      for (int64_t i = piece.begin; i < piece.end; ++i) source.loss += *loss++;
      source.predicted += static_cast<double>(piece.end - piece.begin - 1);
    }
    for (int64_t layer = 0; options.want_probability && layer < config.n_layers; ++layer) {
      if (config.is_dense(layer)) continue;
      const std::vector<double>& sums = activations->blocks[layer].moe.routing.router_probability;
      for (size_t e = 0; e < sums.size(); ++e) result.router_probability[layer][e] += sums[e];
    }
  }
  all_reduce_result(*mesh.world, &result);
  return result;
}

}  // namespace emo
