#include "data/program/exit_code.h"

#include <iterator>
#include <utility>

#include "absl/strings/str_cat.h"

namespace emo {
namespace {

constexpr std::pair<ExitCode, const char*> kMeanings[] = {
    {kExitDone, "done"},
    {kExitDiffers, "a comparison differs"},
    {kExitUsage, "usage or config"},
    {kExitBadData, "bad data"},
    {kExitMissingInput, "missing input"},
    {kExitPeerLost, "a peer was lost"},
    {kExitBug, "a bug"},
    {kExitCannotWrite, "cannot write"},
    {kExitIo, "I/O error"},
    {kExitStopped, "stopped by a signal after saving (start again)"},
    {kExitStalled, "stalled"},
    {kExitNotFinite, "numbers not finite"},
};

constexpr size_t kColumns = 90;

}  // namespace

std::string exit_codes_text() {
  std::string text = "Exit codes:";
  size_t line = text.size();
  for (const auto& [code, meaning] : kMeanings) {
    const std::string part = absl::StrCat(static_cast<int>(code), " ", meaning,
                                          code == std::rbegin(kMeanings)->first ? "." : ",");
    const bool fits = line + 1 + part.size() <= kColumns;
    absl::StrAppend(&text, fits ? " " : "\n", part);
    line = (fits ? line + 1 : 0) + part.size();
  }
  return text;
}

int exit_code(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kOk:
      return kExitDone;
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kFailedPrecondition:
    case absl::StatusCode::kOutOfRange:
      return kExitUsage;
    case absl::StatusCode::kDataLoss:
      return kExitBadData;
    case absl::StatusCode::kNotFound:
      return kExitMissingInput;
    case absl::StatusCode::kUnavailable:
      return kExitPeerLost;
    case absl::StatusCode::kAlreadyExists:
    case absl::StatusCode::kPermissionDenied:
    case absl::StatusCode::kResourceExhausted:
      return kExitCannotWrite;
    case absl::StatusCode::kUnknown:
      return kExitIo;
    case absl::StatusCode::kCancelled:
      return kExitStopped;
    case absl::StatusCode::kDeadlineExceeded:
      return kExitStalled;
    case absl::StatusCode::kAborted:
      return kExitNotFinite;
    default:
      return kExitBug;
  }
}

}  // namespace emo
