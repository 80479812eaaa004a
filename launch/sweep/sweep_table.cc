// What sweep_summary.h says for people: the table and its sentences.
#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "data/program/table_number.h"
#include "launch/sweep/sweep_summary.h"

namespace emo {
namespace {

std::string interval_text(const Interval& interval) {
  return absl::StrFormat("%+.3f to %+.3f", interval.low, interval.high);
}

// "worse by 0.031 (+0.012 to +0.050)"
std::string difference_text(const Comparison& c) {
  if (c.verdict == Verdict::kEqual) return "equal to the bit";
  const std::string by =
      c.interval() ? absl::StrCat(" (", interval_text(*c.interval()), ")") : std::string();
  switch (c.verdict) {
    case Verdict::kBetter:
    case Verdict::kWorse:
      return absl::StrCat(verdict_name(c.verdict), " by ",
                          absl::StrFormat("%.3f", std::abs(c.difference)), by);
    case Verdict::kWithinNoise:
      return absl::StrFormat("within noise at %+.3f%s", c.difference, by);
    default:
      return absl::StrFormat("%+.3f, and how sure that is cannot be told", c.difference);
  }
}

// What the interval is over.
std::string basis_text(const Comparison& c) {
  if (c.over_seeds) return absl::StrCat(", 95 % over ", c.by_seed.size(), " seeds");
  return c.over_documents ? ", 95 % over documents (one seed)" : "";
}

// mean +- deviation in `width` columns.
std::string spread_text(const BySeed& by_seed, int width, Sign sign) {
  const std::vector<double> values = values_of(by_seed);
  if (values.empty()) return absl::StrFormat("%*s", width, "-");
  std::string text = table_number(mean(values), 0, 3, sign);
  if (values.size() > 1)
    absl::StrAppend(&text, absl::StrFormat(" ± %.3f", standard_deviation(values)));
  const bool wide = values.size() > 1;  // "±" is two bytes in one column
  return absl::StrFormat("%*s", width + (wide ? 1 : 0), text);
}

std::string optional_number(const std::optional<double>& value, int width, const char* format,
                            double scale) {
  if (!value) return absl::StrFormat("%*s", width, "-");
  char text[64];
  std::snprintf(text, sizeof text, format, *value * scale);
  return absl::StrFormat("%*s", width, text);
}

std::vector<std::string> main_keeps(const std::vector<ArmSummary>& arms) {
  for (const ArmSummary& arm : arms) {
    std::vector<std::string> keeps;
    for (const CutSummary& cut : arm.cuts) {
      if (cut.is_main) keeps.push_back(keep_text(cut));
    }
    if (!keeps.empty()) return keeps;
  }
  return {};
}

std::string row_of(const SweepConfig& sweep, const ArmSummary& arm,
                   const std::vector<std::string>& keeps, int name_width) {
  std::string row = absl::StrFormat("%-*s %2d/%-2d ", name_width, arm.arm->name,
                                    static_cast<int>(arm.full.size()), static_cast<int>(arm.runs));
  absl::StrAppend(&row, spread_text(arm.full, 15, Sign::kOfNegative));
  if (arm.arm->name == sweep.baseline) {
    absl::StrAppend(&row, absl::StrFormat("  %-17s", "baseline"));
  } else if (arm.full_against && arm.full_against->interval()) {
    absl::StrAppend(&row, "  ", interval_text(*arm.full_against->interval()));
  } else {
    absl::StrAppend(&row, absl::StrFormat("  %-17s", "-"));
  }
  for (size_t i = 0, column = 0; column < keeps.size(); ++i) {
    if (i < arm.cuts.size() && !arm.cuts[i].is_main) continue;
    absl::StrAppend(
        &row, "  ",
        spread_text(i < arm.cuts.size() ? arm.cuts[i].increase : BySeed(), 16, Sign::kAlways));
    ++column;
  }
  absl::StrAppend(&row, optional_number(arm.cost.tokens_per_second, 10, "%.0f", 1),
                  optional_number(arm.cost.copies, 8, "%.2f", 1),
                  optional_number(arm.cost.imbalance, 11, "%.2f", 1),
                  optional_number(arm.cost.peak_memory_bytes, 8, "%.0f", 1e-6));
  return row + "\n";
}

}  // namespace

std::string sentence_of(const SweepConfig& sweep, const ArmSummary& arm) {
  const std::string& name = arm.arm->name;
  if (name == sweep.baseline) return "";
  if (!arm.full_against) {
    return absl::StrCat(
        name, ": ",
        arm.full.empty() ? "no run of it is done" : "no run of the baseline with its seeds is done",
        ", so nothing can be said.");
  }
  std::string text = absl::StrCat(name, " against ", sweep.baseline, basis_text(*arm.full_against),
                                  ": full loss ", difference_text(*arm.full_against));
  for (const CutSummary& cut : arm.cuts) {
    if (!cut.is_main || !cut.loss_against) continue;
    absl::StrAppend(&text, "; with ", keep_text(cut),
                    keep_text(cut).back() == '%' ? " of the experts" : "", " ",
                    difference_text(*cut.loss_against));
  }
  return text + ".";
}

std::string to_table(const SweepConfig& sweep, const std::vector<ArmSummary>& arms) {
  size_t width = 4;
  for (const ArmSummary& arm : arms) width = std::max(width, arm.arm->name.size());
  const auto name_width = static_cast<int>(width);
  const std::vector<std::string> keeps = main_keeps(arms);
  std::string table = absl::StrCat(
      "Test loss in nats per token, mean over domains ± standard deviation over seeds; its "
      "difference\n"
      "to ",
      sweep.baseline,
      " (95 %, paired); and its increase when only so many of a domain's experts are kept.\n\n");
  absl::StrAppend(&table, absl::StrFormat("%-*s %5s %15s  %-17s", name_width, "arm", "runs",
                                          "full loss", "less baseline's"));
  for (const std::string& keep : keeps) absl::StrAppend(&table, absl::StrFormat("  %16s", keep));
  absl::StrAppend(&table,
                  absl::StrFormat("%10s%8s%11s%8s\n", "tokens/s", "copies", "imbalance", "MB"));
  for (const ArmSummary& arm : arms) absl::StrAppend(&table, row_of(sweep, arm, keeps, name_width));
  absl::StrAppend(&table, "\n");
  for (const ArmSummary& arm : arms) {
    const std::string sentence = sentence_of(sweep, arm);
    if (!sentence.empty()) absl::StrAppend(&table, sentence, "\n");
  }
  return table;
}

}  // namespace emo
