#include "eval/experts/retention.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <tuple>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "eval/experts/expert_ranking.h"
#include "eval/experts/layerwise_ranking.h"
#include "eval/loss/perplexity.h"
#include "parallel/agreement.h"
#include "train/subset/expert_subset.h"

namespace emo {
namespace {

// A label of the test data, with the documents that its experts are ranked by.
struct Domain {
  std::string label;
  int32_t source;                    // in the test data
  std::vector<int64_t> calibration;  // in the order in which they are drawn
};

// What was ranked already: scores by domain, method and number of documents; and what "layerwise"
// keeps, which depends on the fraction too.
struct KnownRankings {
  std::map<std::tuple<size_t, std::string, int64_t>, ExpertNumbers> scores;
  std::map<std::tuple<size_t, int64_t, int64_t>, KeptExperts> layerwise;
};

// What the functions below share.
struct Measurement {
  const OpenedModel* model;
  Inference* inference;
  const TokenDataset* calibration;
  const TokenDataset* test;
  const RetentionOptions* options;
  const ModelConfig& config() const { return model->description.config; }
  int64_t sequence_length() const { return model->description.max_positions; }
};

// Labels of the test data that have calibration documents; the others are named in a warning.
absl::StatusOr<std::vector<Domain>> domains_of(const Measurement& m) {
  std::vector<Domain> domains;
  std::vector<std::string> wrong;
  const std::vector<std::string>& labels = m.test->info().sources;
  for (size_t i = 0; i < labels.size(); ++i) {
    const absl::StatusOr<int32_t> source = find_label(*m.calibration, labels[i]);
    if (!source.ok()) {
      if (m.inference->mesh().is_first()) {
        std::fprintf(stderr, "emo: warning: %s is not evaluated: no calibration documents\n",
                     labels[i].c_str());
      }
      continue;
    }
    domains.push_back({labels[i], static_cast<int32_t>(i),
                       choose_documents(*m.calibration, {{*source}, 0, m.options->seed})});
    for (const int64_t documents : m.options->documents) {
      const auto have = static_cast<int64_t>(domains.back().calibration.size());
      if (documents < 1 || documents > have) {
        wrong.push_back(absl::StrCat("--documents ", documents, ": ", m.calibration->folder(),
                                     " has ", have, " with the label ", labels[i]));
      }
    }
  }
  if (!wrong.empty()) return absl::InvalidArgumentError(absl::StrJoin(wrong, "\n"));
  if (domains.empty()) {
    return absl::InvalidArgumentError("calibration and test data have no label in common");
  }
  return domains;
}

// Collective. The scores of a domain's experts by a method that looks at the whole model.
absl::StatusOr<ExpertNumbers> scores_of(Measurement* m, const std::vector<int64_t>& documents,
                                        const std::string& method) {
  const bool easy_ep = method == "easy_ep";
  absl::StatusOr<ExpertUsage> usage =
      usage_of(m->inference, m->sequence_length(), *m->calibration, documents,
               /*first_tokens=*/0, easy_ep);
  if (!usage.ok()) return usage.status();
  return easy_ep ? usage->easy_ep : router_scores(*usage);
}

// Collective. The experts that a cut keeps for domain number i.
absl::StatusOr<KeptExperts> kept_experts(Measurement* m, const std::vector<Domain>& domains,
                                         size_t i, const Cut& cut, KnownRankings* known) {
  const ModelConfig& config = m->config();
  const int64_t count = experts_of(cut.keep, config.num_experts);
  const std::vector<int64_t> keep(config.n_layers, count);
  if (cut.method == "random") {
    return keep_largest(config, random_scores(config, m->options->seed * 1000 + i), keep);
  }
  if (cut.of_other_domain) i = (i + 1) % domains.size();
  std::vector<int64_t> documents = domains[i].calibration;
  if (cut.documents > 0) documents.resize(cut.documents);
  if (cut.method == "layerwise") {
    const auto [kept, is_new] = known->layerwise.try_emplace({i, cut.documents, count});
    if (!is_new) return kept->second;
    absl::StatusOr<LayerwiseRanking> ranking =
        rank_layerwise(m->inference, *m->calibration, documents, m->sequence_length(), keep);
    if (!ranking.ok()) return ranking.status();
    return kept->second = ranking->kept;
  }
  const auto [scores, is_new] = known->scores.try_emplace({i, cut.method, cut.documents});
  if (is_new) {
    absl::StatusOr<ExpertNumbers> measured = scores_of(m, documents, cut.method);
    if (!measured.ok()) return measured.status();
    scores->second = *std::move(measured);
  }
  return keep_largest(config, scores->second, keep);
}

bool same_choice(const Cut& a, const Cut& b) {
  return a.method == b.method && a.keep == b.keep && a.documents == b.documents &&
         a.of_other_domain == b.of_other_domain;
}

// Collective. Calls `passed` after each pass over the test documents.
absl::StatusOr<DomainLosses> measure_domain(Measurement* m, const std::vector<Domain>& domains,
                                            size_t i, const std::vector<Cut>& cuts,
                                            KnownRankings* known,
                                            const std::function<void()>& passed) {
  EvalOptions eval;
  eval.sequence_length = m->sequence_length();
  eval.documents = choose_documents(
      *m->test, {{domains[i].source}, m->options->test_documents, m->options->seed});
  eval.pass.pool = PoolPolicy::none();
  DomainLosses losses;
  absl::StatusOr<std::vector<std::string>> ids = ids_of_documents(*m->test, eval.documents);
  absl::Status status = agree(*m->inference->mesh().world, ids.status());
  if (!status.ok()) return status;
  losses.ids = *std::move(ids);
  const auto evaluate_column = [&] {
    absl::StatusOr<EvalResult> result = evaluate(m->inference, *m->test, eval);
    status.Update(result.status());
    if (!result.ok()) return;
    std::vector<double>& column = losses.losses.emplace_back();
    losses.tokens.clear();
    for (const DocumentLoss& document : result->documents) {
      column.push_back(document.loss);
      losses.tokens.push_back(document.predicted);
    }
    passed();
  };
  evaluate_column();
  eval.pass.routed_off = true;
  evaluate_column();
  eval.pass.routed_off = false;
  absl::StatusOr<KeptExperts> kept;
  for (size_t c = 0; status.ok() && c < cuts.size(); ++c) {
    if (c == 0 || !same_choice(cuts[c - 1], cuts[c]))
      kept = kept_experts(m, domains, i, cuts[c], known);
    if (!kept.ok()) return kept.status();
    eval.pass.subsets = to_subsets(m->config(), *kept, cuts[c].full_weights);
    evaluate_column();
  }
  if (!status.ok()) return status;
  return losses;
}

}  // namespace

std::vector<Cut> cuts_of(const RetentionOptions& options) {
  std::vector<Cut> cuts;
  const auto both_weights = [&](Cut cut) {
    for (const bool full_weights : {false, true}) {
      cut.full_weights = full_weights;
      cuts.push_back(cut);
    }
  };
  for (const std::string& method : options.methods) {
    for (const Keep& keep : options.keeps) both_weights({method, keep});
  }
  const std::string& first = options.methods.front();
  for (const int64_t documents : options.documents) {
    for (const Keep& keep : options.keeps) cuts.push_back({first, keep, documents});
  }
  if (options.other_domain) {
    for (const Keep& keep : options.keeps) both_weights({first, keep, 0, true});
  }
  return cuts;
}

absl::Status check_cuts(const ModelConfig& config, const RetentionOptions& options) {
  if (config.moe_layers() == 0) {
    return absl::InvalidArgumentError("a dense model has no experts to cut");
  }
  for (const Keep& keep : options.keeps) {
    absl::Status status = check_keep(config, experts_of(keep, config.num_experts));
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::StatusOr<RetentionReport> measure_retention(const OpenedModel& model, const Mesh& mesh,
                                                  const TokenDataset& calibration,
                                                  const TokenDataset& test,
                                                  const RetentionOptions& options,
                                                  const RetentionProgress& progress) {
  const std::unique_ptr<Inference> inference = open_inference(model, mesh);
  Measurement m{&model, inference.get(), &calibration, &test, &options};
  const absl::Status possible = check_cuts(m.config(), options);
  if (!possible.ok()) {
    return absl::InvalidArgumentError(absl::StrCat(model.folder, ": ", possible.message()));
  }
  absl::StatusOr<std::vector<Domain>> domains = domains_of(m);
  if (!domains.ok()) return domains.status();
  if (options.other_domain && domains->size() < 2) {
    return absl::InvalidArgumentError("--other-domain: there is one domain only");
  }
  RetentionReport report{m.config().num_experts, cuts_of(options), {}};
  const auto passes = static_cast<int64_t>(2 + report.cuts.size());
  if (progress.begins) progress.begins(static_cast<int64_t>(domains->size()) * passes);
  const auto passed = [&](const std::string& label, int64_t count) {
    if (progress.passed) progress.passed(label, count);
  };
  KnownRankings known;
  for (size_t i = 0; i < domains->size(); ++i) {
    const std::string& label = (*domains)[i].label;
    if (const auto found = progress.known.find(label); found != progress.known.end()) {
      report.domains.insert(*found);
      passed(label, passes);
      continue;
    }
    absl::StatusOr<DomainLosses> losses =
        measure_domain(&m, *domains, i, report.cuts, &known, [&] { passed(label, 1); });
    if (!losses.ok()) return losses.status();
    absl::Status status = progress.measured ? progress.measured(label, *losses) : absl::OkStatus();
    if (!status.ok()) return status;
    report.domains[label] = *std::move(losses);
  }
  const bool predicts = std::any_of(report.domains.begin(), report.domains.end(), [](auto& domain) {
    const std::vector<double>& tokens = domain.second.tokens;
    return std::any_of(tokens.begin(), tokens.end(), [](double n) { return n > 0; });
  });
  if (!predicts) {
    return absl::InvalidArgumentError("no test document has a token that is predicted");
  }
  return report;
}

}  // namespace emo
