#include "eval/commands.h"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <memory>
#include <numeric>
#include <string>

#include "data/files/json.h"
#include "data/files/safetensors.h"
#include "data/program/exit_code.h"
#include "data/rows/loader.h"
#include "eval/open/mesh_options.h"
#include "eval/open/open_model.h"
#include "eval/open/output_file.h"
#include "eval/open/pool_option.h"
#include "model/inference.h"
#include "parallel/agreement.h"
#include "train/checkpoint/find_model.h"
#include "train/model_folder/model_files.h"
#include "train/step/batch_tensors.h"

namespace emo {
namespace {

struct LogitsOptions {
  std::string model, experts, input, output;
  std::string pool = "none";
  MeshOptions mesh;
  bool overwrite = false;
};

// input_ids [B, S] and, where it is there, document_ends [N]: ends of the spans that attention and
// pools are confined to, in the flattened rows.
absl::StatusOr<std::vector<int32_t>> read_integers(const TensorRecord& record,
                                                   const std::string& what) {
  if (record.dtype != "I32" && record.dtype != "I64") {
    return absl::DataLossError(what + " must be I32 or I64, is " + record.dtype);
  }
  const size_t width = record.dtype == "I64" ? 8 : 4;
  std::vector<int32_t> values(record.bytes.size() / width);
  for (size_t i = 0; i < values.size(); ++i) {  // little-endian: the lower half is in place
    std::memcpy(&values[i], record.bytes.data() + i * width, 4);
  }
  return values;
}

absl::StatusOr<Batch> read_batch(const std::string& path, int64_t vocab) {
  absl::StatusOr<TensorFolder> file = TensorFolder::open_file(path);
  if (!file.ok()) return file.status();
  const TensorRecord* ids = file->find("input_ids");
  if (ids == nullptr || ids->shape.size() != 2 || ids->shape[0] < 1 || ids->shape[1] < 1) {
    return absl::DataLossError(path + ": needs a tensor input_ids [rows, length]");
  }
  absl::StatusOr<std::vector<int32_t>> tokens = read_integers(*ids, path + ": input_ids");
  if (!tokens.ok()) return tokens.status();
  for (const int32_t token : *tokens) {
    if (token < 0 || token >= vocab) {
      return absl::DataLossError(
          absl::StrCat(path, ": token ", token, " with a vocabulary of ", vocab));
    }
  }
  Batch batch;
  batch.rows = ids->shape[0];
  batch.sequence_length = ids->shape[1];
  batch.tokens = *std::move(tokens);
  batch.labels = next_token_labels(batch.tokens, batch.sequence_length);
  batch.document_ends = row_ends(batch.rows, batch.sequence_length);
  if (const TensorRecord* record = file->find("document_ends")) {
    absl::StatusOr<std::vector<int32_t>> ends = read_integers(*record, path + ": document_ends");
    if (!ends.ok()) return ends.status();
    const bool ascend =
        std::adjacent_find(ends->begin(), ends->end(), std::greater_equal<>()) == ends->end() &&
        !ends->empty() && ends->front() > 0;
    if (!ascend || !std::includes(ends->begin(), ends->end(), batch.document_ends.begin(),
                                  batch.document_ends.end())) {
      return absl::DataLossError(path +
                                 ": document_ends must ascend and hold the end of every row");
    }
    batch.document_ends = *std::move(ends);
  }
  batch.attention_ends = batch.routing_ends = batch.document_ends;
  for (int64_t row = 0; row < batch.rows; ++row) batch.sequence_index.push_back(row);
  batch.filtered.assign(batch.rows, 0);
  return batch;
}

// Every rank computes the same rows, each with its own experts.
at::Tensor compute_logits(const OpenedModel& opened, const Mesh& mesh, const Batch& batch,
                          const PoolPolicy& pool) {
  InferenceOptions pass;
  pass.settings.pool = pool;
  const Slice slice = to_tensors(batch);
  std::vector<int64_t> all(slice.num_tokens());
  std::iota(all.begin(), all.end(), 0);
  return open_inference(opened, mesh)->logits(slice, pass, all);
}

absl::StatusOr<int> run(const LogitsOptions& options) {
  absl::StatusOr<Mesh> mesh = open_mesh(options.mesh);
  if (!mesh.ok()) return mesh.status();
  absl::Status status;
  if (mesh->is_first()) status = check_new_file(options.output, options.overwrite);
  status = agree(*mesh->world, status);
  if (!status.ok()) return status;
  absl::StatusOr<OpenedModel> opened =
      open_model(options.model, *mesh, options.experts, options.mesh);
  if (!opened.ok()) return opened.status();
  const ModelConfig& config = opened->description.config;
  absl::StatusOr<PoolPolicy> pool = parse_pool(options.pool, config.routed_top_k());
  absl::StatusOr<Batch> batch = read_batch(options.input, config.vocab_size);
  status = pool.status();
  status.Update(batch.status());
  status = agree(*mesh->world, status);
  if (!status.ok()) return status;
  const at::Tensor logits = compute_logits(*opened, *mesh, *batch, *pool);
  if (!mesh->is_first()) return kExitDone;
  const NamedTensor tensor{"logits",
                           "F32",
                           {batch->rows, batch->sequence_length, config.vocab_size},
                           {static_cast<const char*>(logits.const_data_ptr()), logits.nbytes()}};
  status =
      write_safetensors_output(posix_file_system(), options.output, {tensor}, {{"format", "pt"}});
  if (!status.ok()) return status;
  return kExitDone;
}

}  // namespace

Command logits_command() {
  auto options = std::make_shared<LogitsOptions>();
  Command command;
  command.name = "logits";
  command.summary = "A model's logits for given tokens, as safetensors";
  command.options.add("MODEL", &options->model, kModelHelp).required();
  command.options
      .add("--tokens", &options->input,
           "safetensors file with input_ids [rows, length] and, optionally, document_ends")
      .required();
  command.options.add("--output", &options->output, "safetensors file to write: logits f32")
      .required();
  command.options.add("--pool", &options->pool, "document pools: none, N or MIN-MAX")
      .show_default();
  add_subset_option(&command.options, &options->experts);
  add_mesh_options(&command.options, &options->mesh);
  add_device_options(&command.options, &options->mesh);
  command.options.add("--overwrite", &options->overwrite, "replace the output file");
  command.footer =
      "Example: emo logits runs/tiny --tokens in.safetensors --output "
      "out.safetensors";
  command.run = [options] { return run(*options); };
  return command;
}

}  // namespace emo
