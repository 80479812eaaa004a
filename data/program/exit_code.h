// Exit codes after sysexits.h, so that a scheduler can decide what to do with a job that ended.
#pragma once

#include <string>

#include "absl/status/status.h"

namespace emo {

enum ExitCode : int {  // in words: exit_codes_text()
  kExitDone = 0,
  kExitDiffers = 1,
  kExitUsage = 64,
  kExitBadData = 65,
  kExitMissingInput = 66,
  kExitPeerLost = 69,
  kExitBug = 70,
  kExitCannotWrite = 73,
  kExitIo = 74,
  kExitStopped = 75,
  kExitStalled = 76,
  kExitNotFinite = 77,
};

// What the codes mean, for --help and documents: "Exit codes: 0 done, 1 ...", in lines.
std::string exit_codes_text();

// The code for an error. Which absl code means what, throughout the program:
//   InvalidArgument, FailedPrecondition, OutOfRange -> usage or config
//   DataLoss -> bad data           NotFound -> missing input      Unavailable -> peer lost
//   AlreadyExists, PermissionDenied, ResourceExhausted -> cannot write
//   Unknown -> I/O error           Cancelled -> stopped           DeadlineExceeded -> stalled
//   Aborted -> not finite          anything else -> a bug of ours
int exit_code(const absl::Status& status);

}  // namespace emo
