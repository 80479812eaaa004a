#include "eval/training_evaluation.h"

#include <algorithm>
#include <chrono>
#include <memory>
#include <optional>

#include "absl/strings/str_cat.h"
#include "eval/evaluation_size.h"
#include "eval/experts/expert_ranking.h"
#include "eval/loss/perplexity.h"
#include "eval/tasks/training_tasks.h"
#include "parallel/agreement.h"
#include "train/run_data.h"
#include "train/subset/expert_subset.h"

namespace emo {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int64_t kCurve[] = {8, 16, 32, 64};  // experts kept, shared ones counted
constexpr int64_t kLeastTokens = 32;           // of a document

// A domain's documents: to rank by, and to evaluate.
struct Domain {
  std::string label;
  std::vector<int64_t> calibration, test;
};

// The retention curve's data.
struct Curve {
  TokenDataset data;
  int64_t sequence_length;
  std::vector<int64_t> kept;    // numbers of experts below the model's
  std::vector<Domain> domains;  // as many documents as the evaluation's size allows
  int64_t first_tokens;         // of each document
};

struct Evaluation {
  std::optional<Curve> curve;
  std::optional<TrainingTasks> tasks;
  int64_t tokens = 0;  // of forward passes that domains and questions were chosen for; 0: not yet
  Clock::time_point last = Clock::now();
};

// Every other document, from `first` on, until there are `tokens`.
std::vector<int64_t> take_half(const std::vector<int64_t>& drawn,
                               const std::vector<int64_t>& lengths, size_t first, double tokens) {
  std::vector<int64_t> taken;
  for (size_t i = first; i < drawn.size(); i += 2) {
    if (!taken.empty() && static_cast<double>(lengths[drawn[i]]) > tokens) break;
    taken.push_back(drawn[i]);
    tokens -= static_cast<double>(lengths[drawn[i]]);
  }
  return taken;
}

std::vector<int64_t> document_lengths(const TokenDataset& data) {
  std::vector<int64_t> lengths;
  for (int64_t shard = 0; shard < data.num_shards(); ++shard) {
    for (const StoredDocument& document : data.documents(shard)) {
      lengths.push_back(document.length());
    }
  }
  return lengths;
}

std::vector<Domain> choose_domains(const RunConfig& config, const TokenDataset& data,
                                   double tokens) {
  const std::vector<std::string>& labels = data.info().sources;
  const std::vector<int64_t> lengths = document_lengths(data);
  std::vector<Domain> domains;
  for (size_t i = 0; i < labels.size(); ++i) {
    const std::vector<int64_t> drawn =
        choose_documents(data, {{static_cast<int32_t>(i)}, 0, config.run.seed});
    Domain domain{labels[i], take_half(drawn, lengths, 0, tokens),
                  take_half(drawn, lengths, 1, tokens)};
    if (!domain.test.empty()) domains.push_back(std::move(domain));
  }
  return domains;
}

// Losses mean nothing on ids of another tokenizer. Synthetic documents have none to compare with.
absl::Status check_same_tokenizer(const RunConfig& config, const DatasetInfo& data) {
  if (config.data.synthetic) return absl::OkStatus();
  absl::StatusOr<DataTokenizer> trained = tokenizer_of(config);
  if (!trained.ok()) return trained.status();
  const std::string of_training = config.data.mix.empty() ? config.data.path[0] : config.data.mix;
  if (trained->identity.meaning.empty() && trained->identity.bytes.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "eval.data: name the tokenizer of ", of_training, " (data.tokenizer), to see that ",
        config.eval.data, " was prepared with the same"));
  }
  if (!same_tokenizer(trained->identity, data.tokenizer)) {
    return absl::DataLossError(absl::StrCat(
        "eval.data: ", config.eval.data, ": prepared with another tokenizer than ", of_training));
  }
  if (trained->eos_id == data.eos_id) return absl::OkStatus();
  return absl::DataLossError(absl::StrCat("eval.data: ", config.eval.data, ": documents end with ",
                                          data.eos_id, ", those of ", of_training, " with ",
                                          trained->eos_id));
}

absl::StatusOr<Curve> open_curve(const RunConfig& config) {
  absl::StatusOr<TokenDataset> data = TokenDataset::open(config.eval.data);
  if (!data.ok()) return data.status();
  if (data->info().vocab_size > config.model.vocab_size) {
    return absl::DataLossError(absl::StrCat(
        "eval.data: ", config.eval.data, ": its tokenizer has ", data->info().vocab_size,
        " tokens, model.vocab_size is ", config.model.vocab_size));
  }
  absl::Status status = check_same_tokenizer(config, data->info());
  if (!status.ok()) return status;
  std::vector<int64_t> curve;
  for (const int64_t keep : kCurve) {
    if (config.model.moe_layers() > 0 && keep > config.model.num_shared_experts &&
        keep < config.model.num_experts) {
      curve.push_back(keep);
    }
  }
  if (choose_domains(config, *data, 0).empty()) {
    return absl::DataLossError(
        absl::StrCat("eval.data: ", config.eval.data, ": no domain has two documents"));
  }
  return Curve{*std::move(data), config.data.sequence_length, std::move(curve), {}, 0};
}

// Chooses documents for so many tokens of forward passes.
void size_curve(const RunConfig& config, double tokens, Curve* curve) {
  const auto passes =
      static_cast<double>(curve->data.info().sources.size() * (curve->kept.size() + 2));
  const double sample = tokens / passes;  // of a pass over one domain
  curve->domains = choose_domains(config, curve->data, sample);
  curve->first_tokens = std::max(kLeastTokens, static_cast<int64_t>(sample));
}

absl::StatusOr<std::shared_ptr<Evaluation>> open(const RunConfig& config) {
  auto evaluation = std::make_shared<Evaluation>();
  if (!config.eval.data.empty()) {
    absl::StatusOr<Curve> curve = open_curve(config);
    if (!curve.ok()) return curve.status();
    evaluation->curve = *std::move(curve);
  }
  if (!config.eval.tasks.empty()) {
    absl::StatusOr<TrainingTasks> tasks = open_training_tasks(config);
    if (!tasks.ok()) return tasks.status();
    evaluation->tasks = *std::move(tasks);
  }
  return evaluation;
}

// Collective. Loss of the domain's test documents: of the whole model, then along the curve. Empty
// where they have nothing to predict.
absl::StatusOr<std::vector<double>> losses_of(const Curve& curve, const Domain& domain,
                                              Inference* inference) {
  EvalOptions eval;
  eval.sequence_length = curve.sequence_length;
  eval.documents = domain.test;
  eval.first_tokens = curve.first_tokens;
  eval.pass.pool = PoolPolicy::none();
  std::vector<std::vector<ExpertSubset>> subsets = {{}};  // all experts
  if (!curve.kept.empty()) {
    absl::StatusOr<ExpertUsage> usage =
        usage_of(inference, curve.sequence_length, curve.data, domain.calibration,
                 curve.first_tokens, /*easy_ep=*/false);
    if (!usage.ok()) return usage.status();
    const ExpertNumbers scores = router_scores(*usage);
    const ModelConfig& config = inference->config();
    for (const int64_t keep : curve.kept) {
      subsets.push_back(to_subsets(
          config, keep_largest(config, scores, std::vector<int64_t>(config.n_layers, keep)),
          /*full_weights=*/false));
    }
  }
  std::vector<double> losses;
  for (std::vector<ExpertSubset>& subset : subsets) {
    eval.pass.subsets = std::move(subset);
    absl::StatusOr<EvalResult> result = evaluate(inference, curve.data, eval);
    if (!result.ok()) return result.status();
    const SourceLoss loss = total(result->sources);
    if (loss.predicted == 0) return std::vector<double>();
    losses.push_back(loss.mean());
  }
  return losses;
}

std::string metric_name(const std::string& domain, const Curve& curve, size_t point) {
  const std::string where = domain.empty() ? "eval/loss" : absl::StrCat("eval/", domain, "/loss");
  if (point == 0) return where;
  return absl::StrCat(where, " with ", curve.kept[point - 1], " experts");
}

// Collective. Losses of each domain that has something to predict, and their means.
absl::Status measure_curve(const Curve& curve, Inference* inference, Metrics* metrics) {
  std::vector<double> sums(curve.kept.size() + 1, 0.0);
  double domains = 0;
  for (const Domain& domain : curve.domains) {
    absl::StatusOr<std::vector<double>> losses = losses_of(curve, domain, inference);
    if (!losses.ok()) return losses.status();
    if (losses->empty()) continue;
    domains += 1;
    for (size_t point = 0; point < sums.size(); ++point) {
      metrics->emplace_back(metric_name(domain.label, curve, point), (*losses)[point]);
      sums[point] += (*losses)[point];
    }
  }
  for (size_t point = 0; domains > 0 && point < sums.size(); ++point) {
    metrics->emplace_back(metric_name("", curve, point), sums[point] / domains);
  }
  return absl::OkStatus();
}

// Collective. Chooses documents and questions for the size that is allowed; the data and the tasks
// halve it where there are both.
absl::Status size_evaluation(const RunConfig& config, const Observation& observation,
                             Inference* inference, Evaluation* evaluation) {
  const int64_t tokens = evaluation_tokens(config, observation, inference);
  if (tokens == evaluation->tokens) return absl::OkStatus();
  evaluation->tokens = tokens;
  const double share =
      static_cast<double>(tokens) / (evaluation->curve && evaluation->tasks ? 2 : 1);
  if (evaluation->curve) size_curve(config, share, &*evaluation->curve);
  if (!evaluation->tasks) return absl::OkStatus();
  return choose_questions(share, &*evaluation->tasks);
}

absl::StatusOr<Metrics> observe(const RunConfig& config, const Observation& observation,
                                const Mesh& mesh, Evaluation* evaluation) {
  const Clock::time_point begin = Clock::now();
  Stepper* stepper = observation.stepper;
  const std::unique_ptr<Inference> inference = stepper->inference();
  Metrics metrics;
  absl::Status status =
      agree(*mesh.world, size_evaluation(config, observation, inference.get(), evaluation));
  if (!status.ok()) return status;
  if (evaluation->curve) status = measure_curve(*evaluation->curve, inference.get(), &metrics);
  if (status.ok() && evaluation->tasks) {
    status = answer_training_tasks(*evaluation->tasks, inference.get(), &metrics);
  }
  if (!status.ok()) return status;
  const Clock::time_point end = Clock::now();
  const auto seconds = [](Clock::duration time) {
    return std::chrono::duration<double>(time).count();
  };
  metrics.emplace_back("eval/share of time",
                       seconds(end - begin) / seconds(end - evaluation->last));
  evaluation->last = end;
  return metrics;
}

}  // namespace

absl::StatusOr<Observer> open_training_evaluation(const RunConfig& config, const Mesh& mesh) {
  if (config.eval.every == 0) return Observer();
  absl::StatusOr<std::shared_ptr<Evaluation>> evaluation = open(config);
  absl::Status status = agree(*mesh.world, evaluation.status());
  if (!status.ok()) return status;
  return Observer([config, evaluation = *evaluation, &mesh](const Observation& observation) {
    return observe(config, observation, mesh, evaluation.get());
  });
}

}  // namespace emo
