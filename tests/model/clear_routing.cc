#include "tests/model/clear_routing.h"

#include "parallel/self_communicator.h"

namespace emo {

RoutingGap gap_of_pass(const Model& model, const RopeTable& rope, const MicroBatch& batch,
                       const PassOptions& options) {
  const auto alone = self_communicator();
  PassOptions own;
  own.ep = alone.get();
  own.seed = options.seed;
  own.pool = options.pool;
  own.subsets = options.subsets;
  Activations activations;
  PassBuffers buffers;
  forward(model, rope, batch, own, &activations, &buffers);
  return routing_gap(activations.blocks, own.pool);
}

}  // namespace emo
