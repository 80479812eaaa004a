// What the expert exchange costs, counted on every rank.
#pragma once

#include <vector>

#include "parallel/communicator.h"

namespace emo {

// Of one layer and one step. Where the backward pass runs a block again, so does its exchange, and
// both are counted.
struct ExchangeCounters {
  double bytes = 0;   // sent to other ranks: rows, there and back, and the lists of who wants what
  double pairs = 0;   // (row, expert) that this rank's experts computed in forward passes
  double waited = 0;  // seconds until other ranks' messages were here; on a device not measured

  ExchangeCounters& operator+=(const ExchangeCounters& other) {
    bytes += other.bytes;
    pairs += other.pairs;
    waited += other.waited;
    return *this;
  }
};

// Collective, one all-gather. What every rank counted, [size()][here.size()]; `here` has the same
// size on every rank.
std::vector<std::vector<ExchangeCounters>> gather_counters(
    Communicator& world, const std::vector<ExchangeCounters>& here);

}  // namespace emo
