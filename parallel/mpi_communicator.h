// Collectives over MPI, for tensors in host memory.
//
// MPI is initialised with MPI_THREAD_FUNNELED: only the thread that called world_communicator() may
// use a communicator. No tensor may have 2^31 rows or more in one all-to-all, nor a rank's part of
// an all-gather or reduce-scatter more than 2^30 elements; larger ones are refused.
#pragma once

#include <cstdint>
#include <memory>

#include "parallel/communicator.h"

namespace emo {

// True where this process was started by mpirun or srun as one of several ranks (or as one alone).
bool started_by_launcher();

// Initialises MPI and answers the communicator of all ranks. At most once in a process; destroying
// the answer finalises MPI, so it must outlive everything split from it.
std::unique_ptr<Communicator> mpi_world();

// mpi_world() under a launcher, else self_communicator().
std::unique_ptr<Communicator> world_communicator();

// Whether this process is rank 0 of its launcher's job, or was started alone: for messages that
// come before, or after, there is a communicator.
bool is_first_rank();

// Ends the whole job at once with this exit code, from any rank.
[[noreturn]] void abort_job(int exit_code);

// Ends the whole job because a collective failed on `rank` of the job: the others would wait for
// it.
[[noreturn]] void abort_collective(int64_t rank, const char* operation, const char* error,
                                   int exit_code);

}  // namespace emo
