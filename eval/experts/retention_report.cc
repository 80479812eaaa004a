#include <cmath>
#include <functional>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "data/program/table_number.h"
#include "eval/experts/retention.h"
#include "eval/experts/retention_losses.h"

namespace emo {
namespace {

// An estimate of a column, or of what it is above another: a domain's, or the mean of all.
using EstimateOf = std::function<Estimate(size_t column, const size_t* baseline)>;

OrderedJson cut_json(const RetentionReport& report, const Cut& cut) {
  OrderedJson documents = "all";
  if (cut.documents > 0) documents = cut.documents;
  return {{"method", cut.method},
          {"keep", to_json(cut.keep)},
          {"experts", experts_of(cut.keep, report.num_experts)},
          {"documents", documents},
          {"calibrated_on", cut.of_other_domain ? "other" : "own"},
          {"weights", cut.full_weights ? "full" : "kept"}};
}

OrderedJson numbers_json(const RetentionReport& report, const EstimateOf& estimate) {
  OrderedJson list = OrderedJson::array();
  for (size_t i = 0; i < report.cuts.size(); ++i) {
    const Estimate increase = estimate(kFirstCut + i, &kAllExperts);
    OrderedJson cut = cut_json(report, report.cuts[i]);
    cut["loss"] = estimate(kFirstCut + i, nullptr).mean;
    cut["increase"] = increase.mean;
    cut["standard_error"] = increase.standard_error;
    list.push_back(cut);
  }
  const Estimate full = estimate(kAllExperts, nullptr);
  return {{"full", full.mean},
          {"standard_error", full.standard_error},
          {"no_routed_experts", estimate(kNoRoutedExperts, nullptr).mean},
          {"cuts", list}};
}

// A column's loss of each document, in nats per token.
OrderedJson by_document(const DomainLosses& domain, size_t column) {
  OrderedJson losses = OrderedJson::array();
  for (size_t i = 0; i < domain.tokens.size(); ++i) {
    losses.push_back(domain.losses[column][i] / domain.tokens[i]);
  }
  return losses;
}

OrderedJson documents_json(const DomainLosses& domain) {
  OrderedJson cuts = OrderedJson::array();
  for (size_t column = kFirstCut; column < domain.losses.size(); ++column) {
    cuts.push_back(by_document(domain, column));
  }
  return {{"ids", domain.ids},
          {"tokens", domain.tokens},
          {"full", by_document(domain, kAllExperts)},
          {"no_routed_experts", by_document(domain, kNoRoutedExperts)},
          {"cuts", cuts}};
}

double total_tokens(const DomainLosses& domain) {
  double tokens = 0;
  for (const double document : domain.tokens) tokens += document;
  return tokens;
}

// The cuts that are columns of the table: first those with a softmax over the kept experts.
std::vector<size_t> columns_of(const std::vector<Cut>& cuts) {
  std::vector<size_t> columns;
  for (const bool full_weights : {false, true}) {
    for (size_t i = 0; i < cuts.size(); ++i) {
      const bool own = cuts[i].documents == 0 && !cuts[i].of_other_domain;
      if (own && cuts[i].full_weights == full_weights) columns.push_back(i);
    }
  }
  return columns;
}

std::string table_row(const std::string& label, const std::vector<size_t>& columns,
                      const EstimateOf& estimate) {
  const auto increase = [&](size_t column) {
    const double rise = estimate(column, &kAllExperts).mean;
    return absl::StrCat(" ", table_number(rise, 9, 3, Sign::kAlways));
  };
  std::string row =
      absl::StrFormat("%-24s ", label) + table_number(estimate(kAllExperts, nullptr).mean, 7, 3);
  for (const size_t i : columns) row += increase(kFirstCut + i);
  return absl::StrCat(row, increase(kNoRoutedExperts), "\n");
}

EstimateOf of_domain(const DomainLosses& domain) {
  return [&domain](size_t column, const size_t* baseline) {
    return domain_estimate(domain, column, baseline);
  };
}

EstimateOf of_mean(const RetentionReport& report) {
  return [&report](size_t column, const size_t* baseline) {
    return mean_estimate(report, column, baseline);
  };
}

}  // namespace

OrderedJson to_json(const RetentionReport& report) {
  OrderedJson json = numbers_json(report, of_mean(report));
  int64_t documents = 0;
  double tokens = 0;
  OrderedJson domains = OrderedJson::object();
  for (const auto& [label, losses] : report.domains) {
    OrderedJson domain = numbers_json(report, of_domain(losses));
    domain["documents"] = losses.ids.size();
    domain["tokens"] = std::llround(total_tokens(losses));
    domain["by_document"] = documents_json(losses);
    documents += static_cast<int64_t>(losses.ids.size());
    tokens += total_tokens(losses);
    domains[label] = domain;
  }
  json["documents"] = documents;
  json["tokens"] = std::llround(tokens);
  json["domains"] = domains;
  return json;
}

std::string to_table(const std::vector<std::pair<std::string, RetentionReport>>& reports) {
  std::string table =
      "Test loss in nats per token with all experts, and its increase when only some are kept.\n"
      "'fw': the kept experts keep the weights that they have in the full model.\n\n";
  for (const auto& [name, report] : reports) {
    const std::vector<size_t> columns = columns_of(report.cuts);
    std::string methods = absl::StrFormat("%-24s %7s", name, "full");
    std::string shares = absl::StrFormat("%-24s %7s", "", "");
    for (const size_t i : columns) {
      const Cut& cut = report.cuts[i];
      absl::StrAppend(&methods, absl::StrFormat(" %9s", cut.method));
      absl::StrAppend(&shares, absl::StrFormat(" %9s", absl::StrCat(cut.full_weights ? "fw " : "",
                                                                    to_text(cut.keep))));
    }
    absl::StrAppend(&table, methods, absl::StrFormat(" %9s\n", "no"), shares,
                    absl::StrFormat(" %9s\n", "routed"));
    for (const auto& [label, losses] : report.domains)
      absl::StrAppend(&table, table_row("  " + label, columns, of_domain(losses)));
    absl::StrAppend(&table, table_row("  mean over domains", columns, of_mean(report)), "\n");
  }
  return table;
}

}  // namespace emo
