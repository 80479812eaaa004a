#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "data/program/table_number.h"
#include "eval/experts/retention.h"

namespace emo {
namespace {

OrderedJson numbers_json(const std::vector<Cut>& cuts, const Retention& r) {
  OrderedJson list = OrderedJson::array();
  for (size_t i = 0; i < cuts.size(); ++i) {
    const Cut& cut = cuts[i];
    OrderedJson documents = "all";
    if (cut.documents > 0) documents = cut.documents;
    list.push_back({{"method", cut.method},
                    {"keep", cut.keep},
                    {"documents", documents},
                    {"calibrated_on", cut.of_other_domain ? "other" : "own"},
                    {"weights", cut.full_weights ? "full" : "kept"},
                    {"loss", r.cut[i]},
                    {"increase", r.cut[i] - r.full}});
  }
  return {{"full", r.full}, {"no_routed_experts", r.no_routed_experts}, {"cuts", list}};
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
                      const Retention& r) {
  const auto increase = [&](double loss) {
    return absl::StrCat(" ", table_number(loss - r.full, 9, 3, Sign::kAlways));
  };
  std::string row = absl::StrFormat("%-24s ", label) + table_number(r.full, 7, 3);
  for (const size_t i : columns) row += increase(r.cut[i]);
  return absl::StrCat(row, increase(r.no_routed_experts), "\n");
}

}  // namespace

OrderedJson to_json(const RetentionReport& report) {
  OrderedJson json = numbers_json(report.cuts, report.mean);
  json["domains"] = OrderedJson::object();
  for (const auto& [label, r] : report.domains)
    json["domains"][label] = numbers_json(report.cuts, r);
  return json;
}

std::string to_table(const std::vector<std::pair<std::string, RetentionReport>>& reports) {
  std::string table =
      "Test loss in nats per token with all experts, and its increase when only some are kept.\n"
      "'fw': the kept experts keep the weights that they have in the full model.\n\n";
  for (const auto& [name, report] : reports) {
    const std::vector<size_t> columns = columns_of(report.cuts);
    std::string methods = absl::StrFormat("%-24s %7s", name, "full");
    std::string fractions = absl::StrFormat("%-24s %7s", "", "");
    for (const size_t i : columns) {
      const Cut& cut = report.cuts[i];
      absl::StrAppend(&methods, absl::StrFormat(" %9s", cut.method));
      absl::StrAppend(
          &fractions,
          absl::StrFormat(" %9s", absl::StrCat(cut.full_weights ? "fw " : "", cut.keep)));
    }
    absl::StrAppend(&table, methods, absl::StrFormat(" %9s\n", "no"), fractions,
                    absl::StrFormat(" %9s\n", "routed"));
    for (const auto& [label, r] : report.domains)
      absl::StrAppend(&table, table_row("  " + label, columns, r));
    absl::StrAppend(&table, table_row("  mean over domains", columns, report.mean), "\n");
  }
  return table;
}

}  // namespace emo
