// Collectives over NCCL, for tensors in the memory of one GPU per rank.
//
// Exchange and compute overlap on two streams: an operation begins when the compute stream has done
// what it was given before the call, and Pending::wait() makes the compute stream wait for the
// operation. The host waits for neither; who reads a result on the host reads it through the
// compute stream. Counts have 64 bits.
//
// A communicator and all that are split from it share one communication stream: NCCL demands that
// operations of several communicators run in the same order on all ranks, and a stream gives that.
//
// NCCL gives the same all_reduce, bit for bit, on all ranks of a group; which bits depends on their
// number and on how they are connected.
#pragma once

#include <c10/core/Device.h>

#include <memory>

#include "parallel/communicator.h"

struct CUstream_st;  // what a cudaStream_t points to

namespace emo {

// Collective over `host`, a communicator of the same ranks for host tensors. `device` becomes this
// thread's current CUDA device; its tensors are written and read on `compute` (null: the default
// stream) and go to NCCL. `host` serves tensors in host memory, barrier() (which does not wait for
// the device), all_to_all_uncounted() and split(). Tensors anywhere else are refused.
//
// On a machine without a GPU `device` may be the CPU, with a library in NCCL's place that works on
// host memory: then all tensors are the device's.
std::unique_ptr<Communicator> nccl_communicator(std::unique_ptr<Communicator> host,
                                                at::Device device, CUstream_st* compute);

}  // namespace emo
