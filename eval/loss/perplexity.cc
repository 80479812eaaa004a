#include "eval/loss/perplexity.h"

#include <ATen/ops/from_blob.h>

#include <cmath>
#include <numbers>
#include <unordered_map>

namespace emo {
namespace {

void all_reduce_result(Communicator& world, EvalResult* result) {
  std::vector<double*> numbers;  // what was counted from this rank's own documents only
  for (SourceLoss& source : result->sources) {
    numbers.push_back(&source.loss);
    numbers.push_back(&source.predicted);
  }
  for (DocumentLoss& document : result->documents) {
    numbers.push_back(&document.loss);
    numbers.push_back(&document.predicted);
  }
  std::vector<double> flat;
  for (const double* number : numbers) flat.push_back(*number);
  world.all_reduce(at::from_blob(flat.data(), {static_cast<int64_t>(flat.size())}, at::kDouble),
                   ReduceOp::kSum);
  for (size_t i = 0; i < flat.size(); ++i) *numbers[i] = flat[i];
}

// Where each document stands in the list.
std::unordered_map<int64_t, size_t> places_of(const std::vector<int64_t>& documents) {
  std::unordered_map<int64_t, size_t> places;
  for (size_t i = 0; i < documents.size(); ++i) places.emplace(documents[i], i);
  return places;
}

}  // namespace

double SourceLoss::mean() const { return predicted > 0 ? loss / predicted : std::nan(""); }
double SourceLoss::perplexity() const { return std::exp(mean()); }
double SourceLoss::bits_per_byte() const {
  return bytes > 0 ? loss / std::numbers::ln2 / bytes : std::nan("");
}

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

absl::StatusOr<EvalResult> evaluate(Inference* inference, const TokenDataset& data,
                                    const EvalOptions& options) {
  EvalResult result;
  result.sources.resize(data.info().sources.size());
  result.documents.resize(options.documents.size());
  const std::unordered_map<int64_t, size_t> place = places_of(options.documents);
  const std::vector<DocumentPiece> all_pieces =
      cut_documents(data, options.documents, options.sequence_length, options.first_tokens);
  for (const DocumentPiece& piece : all_pieces) {
    result.sources[piece.source].bytes += static_cast<double>(piece.bytes);
    result.sources[piece.source].documents += piece.ordinal == 0 ? 1 : 0;
  }
  Communicator& world = *inference->mesh().world;
  InferenceOptions pass{options.pass};
  const auto run = [&](const PieceBatch& pieces, const Slice& batch) {
    if (options.observe) {
      pass.after_block = [&](const BlockView& block) { options.observe(batch, block); };
    }
    const float* loss = inference->token_losses(batch, pass).data();
    for (const DocumentPiece& piece : pieces) {
      SourceLoss& source = result.sources[piece.source];
      DocumentLoss& document = result.documents[place.at(piece.number)];
      for (int64_t i = piece.begin; i < piece.end; ++i, ++loss) {
        source.loss += *loss;
        document.loss += *loss;
      }
      const auto predicted = static_cast<double>(piece.length() - piece.context);
      source.predicted += predicted;
      document.predicted += predicted;
    }
  };
  absl::Status status = for_each_batch(
      data, deal_batches(all_pieces, options.tokens_per_batch, world.size()), world, run);
  if (!status.ok()) return status;
  all_reduce_result(world, &result);
  return result;
}

}  // namespace emo
