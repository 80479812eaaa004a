#include "eval/loss/perplexity.h"

#include <ATen/ops/from_blob.h>

#include <cmath>
#include <numbers>

namespace emo {
namespace {

void all_reduce_result(Communicator& world, EvalResult* result) {
  std::vector<double*> numbers;  // what was counted from this rank's own documents only
  for (SourceLoss& source : result->sources) {
    numbers.push_back(&source.loss);
    numbers.push_back(&source.predicted);
  }
  std::vector<double> flat;
  for (const double* number : numbers) flat.push_back(*number);
  world.all_reduce(at::from_blob(flat.data(), {static_cast<int64_t>(flat.size())}, at::kDouble),
                   ReduceOp::kSum);
  for (size_t i = 0; i < flat.size(); ++i) *numbers[i] = flat[i];
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

PassOptions evaluation_pass(const Mesh& mesh, const PassSettings& settings) {
  PassOptions pass;
  pass.ep = mesh.ep.get();
  pass.settings = settings;
  pass.settings.recompute = Recompute::kBlock;
  return pass;
}

absl::StatusOr<EvalResult> evaluate(const Model& model, const Mesh& mesh, const TokenDataset& data,
                                    const EvalOptions& options, PassMemory* memory) {
  memory->slices.resize(1);
  Activations* activations = &memory->slices[0];
  EvalResult result;
  result.sources.resize(data.info().sources.size());
  const std::vector<DocumentPiece> all_pieces =
      cut_documents(data, options.documents, options.sequence_length, options.first_tokens);
  for (const DocumentPiece& piece : all_pieces) {
    result.sources[piece.source].bytes += static_cast<double>(piece.bytes);
    result.sources[piece.source].documents += piece.ordinal == 0 ? 1 : 0;
  }
  PassOptions pass = evaluation_pass(mesh, options.pass);
  std::vector<float> token_loss;

  const auto run = [&](const PieceBatch& pieces, const Slice& tensors) {
    if (options.observe) {
      pass.after_block = [&](int64_t layer, const BlockActivations& block, const at::Tensor&) {
        options.observe(tensors, layer, block);
      };
    }
    forward(model, tensors, pass, activations, &memory->buffers);
    const int64_t T = tensors.num_tokens();
    token_loss.resize(T);
    lm_loss(model.weights.head, T, activations->normalised.const_data_ptr<float>(),
            tensors.labels.const_data_ptr<int32_t>(), nullptr, token_loss.data(),
            &memory->buffers.block.feed_forward.scratch);
    const float* loss = token_loss.data();
    for (const DocumentPiece& piece : pieces) {
      SourceLoss& source = result.sources[piece.source];
      for (int64_t i = piece.begin; i < piece.end; ++i) source.loss += *loss++;
      source.predicted += static_cast<double>(piece.length() - piece.context);
    }
  };
  absl::Status status =
      for_each_batch(data, deal_batches(all_pieces, options.tokens_per_batch, mesh.world->size()),
                     *mesh.world, run);
  if (!status.ok()) return status;
  all_reduce_result(*mesh.world, &result);
  return result;
}

}  // namespace emo
