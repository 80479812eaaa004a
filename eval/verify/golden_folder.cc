#include "eval/verify/golden_folder.h"

#include <algorithm>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "data/rows/loader.h"

namespace emo {
namespace {

struct Sizes {
  EosRoutesWith eos_routes_with = EosRoutesWith::kPrevious;
  int64_t batch = 0;
  int64_t seq = 0;
  int32_t eos = 0;
};

absl::Status read_config(const Json& json, const std::string& where, GoldenFolder* golden,
                         Sizes* sizes) {
  absl::Status status;
  const auto number = [&](const char* key) {
    absl::StatusOr<int64_t> value = json_field<int64_t>(json, key, where);
    if (value.ok()) return *value;
    status.Update(value.status());
    return int64_t{0};
  };
  ModelConfig& config = golden->config;
  config.d_model = number("d");
  config.n_layers = number("layers");
  config.n_heads = number("heads");
  config.d_expert = number("hidden");
  config.num_experts = number("experts");
  config.num_shared_experts = number("shared");
  config.top_k = number("topk");
  config.vocab_size = number("vocab");
  sizes->seq = golden->sequence_length = number("seq");
  sizes->batch = number("batch");
  sizes->eos = static_cast<int32_t>(number("eos_id"));
  absl::StatusOr<bool> standard = json_field<bool>(json, "std", where);
  status.Update(standard.status());
  absl::StatusOr<std::string> convention =
      json_field_or<std::string>(json, "eos_routes_with", "previous", where);
  status.Update(convention.status());
  if (!status.ok()) return status;
  if (*convention != "previous" && *convention != "next") {
    return absl::DataLossError(where + ": eos_routes_with '" + *convention + "'");
  }
  sizes->eos_routes_with = *convention == "next" ? EosRoutesWith::kNext : EosRoutesWith::kPrevious;
  PoolPolicy& pool = golden->contract.pool;
  pool.kind = *standard ? PoolPolicy::Kind::kNone : PoolPolicy::Kind::kRange;
  if (!*standard) pool.min = pool.max = number("pool");
  if (!status.ok()) return status;
  const bool possible =
      config.d_model > 0 && config.n_heads > 0 && config.d_model % config.n_heads == 0 &&
      config.head_dim() % 2 == 0 && config.n_layers > 0 && config.d_expert > 0 &&
      config.num_shared_experts >= 0 && config.routed_top_k() >= 1 &&
      config.routed_top_k() <= config.routed_experts() && config.vocab_size > 0 && sizes->seq > 0 &&
      sizes->batch > 0 && (*standard || pool.min >= config.routed_top_k());
  return possible ? absl::OkStatus()
                  : absl::DataLossError(where + ": these sizes are not possible: " + json.dump());
}

// input_ids [B, S] as I32 or I64.
absl::StatusOr<std::vector<int32_t>> read_tokens(const TensorFolder& file, const std::string& name,
                                                 const Sizes& sizes, int64_t vocab) {
  const TensorRecord* record = file.find(name);
  if (record == nullptr) return absl::NotFoundError(file.where() + ": no tensor " + name);
  const std::vector<int64_t> shape = {sizes.batch, sizes.seq};
  if (record->shape != shape || (record->dtype != "I64" && record->dtype != "I32")) {
    return absl::DataLossError(absl::StrCat(file.where(), ": ", name, " is ", record->dtype, " ",
                                            shape_string(record->shape), ", expected I64 or I32 ",
                                            shape_string(shape)));
  }
  std::vector<int32_t> tokens(sizes.batch * sizes.seq);
  const size_t width = record->dtype == "I64" ? 8 : 4;
  for (size_t i = 0; i < tokens.size(); ++i) {
    int64_t token = 0;  // little-endian, so the lower half is in place
    std::memcpy(&token, record->bytes.data() + i * width, width);
    if (token < 0 || token >= vocab) {
      return absl::DataLossError(absl::StrCat(file.where(), ": ", name, " has token ", token,
                                              " with a vocabulary of ", vocab));
    }
    tokens[i] = static_cast<int32_t>(token);
  }
  return tokens;
}

absl::StatusOr<Batch> make_batch(std::vector<int32_t> tokens, const Json& lengths,
                                 const std::string& where, const Sizes& sizes) {
  Batch batch;
  batch.rows = sizes.batch;
  batch.sequence_length = sizes.seq;
  batch.tokens = std::move(tokens);
  batch.labels = next_token_labels(batch.tokens, sizes.seq);
  const absl::Status bad =
      absl::DataLossError(where + ": document_lengths must be positive lists, each with the sum " +
                          std::to_string(sizes.seq));
  if (!lengths.is_array() || static_cast<int64_t>(lengths.size()) != sizes.batch) return bad;
  for (int64_t row = 0; row < sizes.batch; ++row) {
    int64_t end = row * sizes.seq;
    if (!lengths[row].is_array()) return bad;
    for (const Json& length : lengths[row]) {
      if (!length.is_number_integer() || length.get<int64_t>() < 1) return bad;
      end += length.get<int64_t>();
      batch.document_ends.push_back(static_cast<int32_t>(end));
    }
    if (end != (row + 1) * sizes.seq) return bad;
    batch.sequence_index.push_back(row);
    batch.filtered.push_back(0);
  }
  batch.attention_ends = batch.document_ends;
  batch.routing_ends =
      routing_ends(batch.document_ends, batch.tokens, sizes.seq, sizes.eos_routes_with, sizes.eos);
  return batch;
}

std::vector<int32_t> ends_of_rows(const std::vector<int32_t>& ends, int64_t begin, int64_t end) {
  std::vector<int32_t> part;
  for (const int32_t e : ends) {
    if (e > begin && e <= end) part.push_back(static_cast<int32_t>(e - begin));
  }
  return part;
}

}  // namespace

Batch rows_of(const Batch& all, int64_t rank, int64_t world) {
  const SequenceRange range = share_of({0, all.rows}, rank, world);
  const int64_t S = all.sequence_length;
  const auto slice = [](const auto& values, int64_t begin, int64_t end) {
    return std::remove_cvref_t<decltype(values)>(values.begin() + begin, values.begin() + end);
  };
  Batch part;
  part.rows = range.end - range.begin;
  part.sequence_length = S;
  part.tokens = slice(all.tokens, range.begin * S, range.end * S);
  part.labels = slice(all.labels, range.begin * S, range.end * S);
  part.document_ends = ends_of_rows(all.document_ends, range.begin * S, range.end * S);
  part.attention_ends = ends_of_rows(all.attention_ends, range.begin * S, range.end * S);
  part.routing_ends = ends_of_rows(all.routing_ends, range.begin * S, range.end * S);
  part.sequence_index = slice(all.sequence_index, range.begin, range.end);
  part.filtered = slice(all.filtered, range.begin, range.end);
  return part;
}

absl::StatusOr<ModelDescription> read_golden_sizes(const std::string& folder) {
  const std::string where = folder + "/golden.json";
  absl::StatusOr<Json> json = read_json_file(where);
  if (!json.ok()) return json.status();
  if (!json->contains("config")) return absl::DataLossError(where + ": 'config' is missing");
  GoldenFolder golden;
  Sizes sizes;
  absl::Status status = read_config((*json)["config"], where + ": config", &golden, &sizes);
  if (!status.ok()) return status;
  ModelDescription description;
  description.config = golden.config;
  description.max_positions = sizes.seq;
  description.eos_id = sizes.eos;
  description.contract.pool.kind = PoolPolicy::Kind::kNone;
  description.contract_stated = false;
  return description;
}

absl::StatusOr<GoldenFolder> read_golden(const std::string& folder) {
  const std::string where = folder + "/golden.json";
  absl::StatusOr<Json> json = read_json_file(where);
  if (!json.ok()) return json.status();
  if (!json->contains("config") || !json->contains("document_lengths")) {
    return absl::DataLossError(where + ": 'config' or 'document_lengths' is missing");
  }
  GoldenFolder golden;
  golden.expected = *json;
  Sizes sizes;
  absl::Status status = read_config((*json)["config"], where + ": config", &golden, &sizes);
  if (!status.ok()) return status;

  TensorFolder inputs;
  const std::pair<const char*, TensorFolder*> files[] = {{"model", &golden.weights},
                                                         {"model_after", &golden.weights_after},
                                                         {"grads", &golden.gradients},
                                                         {"forward", &golden.forward},
                                                         {"trajectory_inputs", &inputs}};
  for (const auto& [name, file] : files) {
    absl::StatusOr<TensorFolder> opened = TensorFolder::open(folder, name);
    if (!opened.ok()) return opened.status();
    *file = *std::move(opened);
  }

  const auto batch_of = [&](const TensorFolder& file, const std::string& name,
                            const Json& lengths) -> absl::StatusOr<Batch> {
    absl::StatusOr<std::vector<int32_t>> tokens =
        read_tokens(file, name, sizes, golden.config.vocab_size);
    if (!tokens.ok()) return tokens.status();
    return make_batch(*std::move(tokens), lengths, where, sizes);
  };
  absl::StatusOr<Batch> batch = batch_of(golden.forward, "input_ids", (*json)["document_lengths"]);
  if (!batch.ok()) return batch.status();
  golden.batch = *std::move(batch);
  for (const Json& step : json->value("trajectory", Json::array())) {
    absl::StatusOr<int64_t> number = json_field<int64_t>(step, "step", where);
    if (!number.ok()) return number.status();
    absl::StatusOr<double> rate = json_field<double>(step, "lr", where);
    if (!rate.ok()) return rate.status();
    absl::StatusOr<Batch> rows = batch_of(inputs, absl::StrCat("step", *number, ".input_ids"),
                                          step.value("document_lengths", Json()));
    if (!rows.ok()) return rows.status();
    golden.trajectory.push_back({*rate, step, *std::move(rows)});
  }
  return golden;
}

}  // namespace emo
