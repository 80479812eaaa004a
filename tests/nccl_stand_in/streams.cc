// CUDA's streams and events.
#include <string>

#include "tests/nccl_stand_in/peers.h"
#include "tests/nccl_stand_in/stand_in.h"

namespace emo::stand_in {

State& state() {
  static State the_state;
  return the_state;
}

cudaError_t refuse(cudaError_t code, const std::string& call, const std::string& text) {
  state().cuda_errors[code] = "rank " + std::to_string(job_rank()) + ": " + call + ": " + text;
  return code;
}

void run_stream(cudaStream_t stream, int64_t position) {
  while (stream->done < position) {
    const std::function<void()> work = std::move(stream->queue.front());
    stream->queue.pop_front();
    ++stream->done;
    work();
  }
}

namespace {

bool live(cudaStream_t stream) { return stream == nullptr || state().streams.live(stream); }

// What an event or a wait must fulfil.
cudaError_t check(const char* call, bool handles_are_live) {
  if (!handles_are_live)
    return refuse(cudaErrorInvalidResourceHandle, call, "the stream or event does not exist");
  if (state().open_groups > 0)
    return refuse(cudaErrorNotPermitted, call, "inside a group, whose calls are not queued yet");
  return cudaSuccess;
}

void queue_wait(cudaStream_t stream, const CUevent_st& event) {
  if (event.stream == nullptr) {
    stream->waited_for_compute = event.time;
    return;
  }
  stream->queue.push_back(
      [other = event.stream, position = event.position] { run_stream(other, position); });
  ++stream->queued;
}

}  // namespace
}  // namespace emo::stand_in

using emo::stand_in::refuse;
using emo::stand_in::state;

cudaError_t cudaSetDevice(int device) {
  return refuse(cudaErrorNoDevice, __func__, "there is no GPU " + std::to_string(device));
}

const char* cudaGetErrorString(cudaError_t error) {
  const auto found = state().cuda_errors.find(error);
  return found == state().cuda_errors.end() ? "no error" : found->second.c_str();
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned int flags) {
  if (stream == nullptr || flags != cudaStreamNonBlocking)
    return refuse(cudaErrorInvalidValue, __func__,
                  "only streams that do not wait for the null stream");
  *stream = state().streams.make();
  return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  if (!state().streams.live(stream))
    return refuse(cudaErrorInvalidResourceHandle, __func__, "the stream does not exist");
  state().streams.destroy(stream);
  if (stream->done < stream->queued)
    return refuse(cudaErrorNotReady, __func__, "work that nothing waited for is still queued");
  return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  const cudaError_t result = emo::stand_in::check(__func__, emo::stand_in::live(stream));
  if (result == cudaSuccess && stream != nullptr) emo::stand_in::run_stream(stream, stream->queued);
  return result;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned int) {
  if (event == nullptr) return refuse(cudaErrorInvalidValue, __func__, "null");
  *event = state().events.make();
  return cudaSuccess;
}

cudaError_t cudaEventDestroy(cudaEvent_t event) {
  if (!state().events.live(event))
    return refuse(cudaErrorInvalidResourceHandle, __func__, "the event does not exist");
  state().events.destroy(event);
  return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  const cudaError_t result =
      emo::stand_in::check(__func__, emo::stand_in::live(stream) && state().events.live(event));
  if (result != cudaSuccess) return result;
  *event = {true, stream, stream == nullptr ? 0 : stream->queued, ++state().clock};
  return cudaSuccess;
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned int) {
  const cudaError_t result =
      emo::stand_in::check(__func__, emo::stand_in::live(stream) && state().events.live(event));
  if (result != cudaSuccess) return result;
  if (!event->recorded)
    return refuse(cudaErrorInvalidValue, __func__, "waits for an event that was never recorded");
  if (stream != nullptr) {
    emo::stand_in::queue_wait(stream, *event);
  } else if (event->stream != nullptr) {
    emo::stand_in::run_stream(event->stream, event->position);
  }
  return cudaSuccess;
}
