#include "data/program/exit_code.h"

namespace emo {

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
