// What the expert exchange costs, counted on every rank, and what all ranks say of it together.
#pragma once

#include <cstdint>
#include <vector>

#include "parallel/communicator.h"

namespace emo {

struct ExchangeCounters {
  double bytes = 0;   // sent to other ranks: rows, there and back, and the lists of who wants what
  double pairs = 0;   // (row, expert) that this rank computed in forward passes
  double waited = 0;  // seconds until other ranks' messages were here
};

// Over ranks. The rank that the others wait for is the one that waits least itself.
struct ExchangeTraffic {
  double bytes = 0;                // mean
  double pairs_max_over_mean = 1;  //
  double waited_mean = 0;          // seconds
  double waited_max = 0;           //
};

// Collective. One for each element of `here`, which has the same size on every rank.
std::vector<ExchangeTraffic> reduce_traffic(Communicator& world,
                                            const std::vector<ExchangeCounters>& here);

// Collective. Seconds that each rank waited, all of `here` together. [size()]
std::vector<double> waited_by_rank(Communicator& world, const std::vector<ExchangeCounters>& here);

}  // namespace emo
