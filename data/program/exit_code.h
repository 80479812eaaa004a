// Exit codes after sysexits.h, so that a scheduler can decide what to do with a job that ended.
#pragma once

#include "absl/status/status.h"

namespace emo {

enum ExitCode : int {
  kExitDone = 0,
  kExitDiffers = 1,        // check, verify: a comparison is beyond tolerance
  kExitUsage = 64,         // wrong usage or config
  kExitBadData = 65,       //
  kExitMissingInput = 66,  //
  kExitPeerLost = 69,      //
  kExitBug = 70,           // ours
  kExitCannotWrite = 73,   //
  kExitIo = 74,            //
  kExitStopped = 75,       // by a signal, after saving: start me again
  kExitStalled = 76,       // a collective
  kExitNotFinite = 77,     // numbers
};

// The code for an error. Which absl code means what, throughout the program:
//   InvalidArgument, FailedPrecondition, OutOfRange -> usage or config
//   DataLoss -> bad data           NotFound -> missing input      Unavailable -> peer lost
//   AlreadyExists, PermissionDenied, ResourceExhausted -> cannot write
//   Unknown -> I/O error           Cancelled -> stopped           DeadlineExceeded -> stalled
//   Aborted -> not finite          anything else -> a bug of ours
int exit_code(const absl::Status& status);

}  // namespace emo
