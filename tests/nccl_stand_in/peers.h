// Messages between the stand-in's ranks. All that waits gives up after a minute and ends the job.
#pragma once

#include <mpi.h>

#include <cstddef>
#include <cstdint>
#include <vector>

namespace emo::stand_in {

int job_rank();  // in MPI_COMM_WORLD

struct Numbers {
  std::vector<int64_t> values;
  int source = 0;
};

// `numbers` must live until `request` is done.
MPI_Request send_numbers(const std::vector<int64_t>& numbers, int to, int tag, MPI_Comm comm);
// `from` may be MPI_ANY_SOURCE. `call` names what waits.
Numbers receive_numbers(int from, int tag, MPI_Comm comm, const char* call);

// Any number of bytes, in messages whose counts fit in an int.
void send_bytes(const void* from, size_t count, int to, MPI_Comm comm,
                std::vector<MPI_Request>* requests);
void receive_bytes(void* to, size_t count, int from, MPI_Comm comm,
                   std::vector<MPI_Request>* requests);

void wait_for(std::vector<MPI_Request>* requests, const char* call);

}  // namespace emo::stand_in
