// A request to stop, from a scheduler or a person: SIGTERM, SIGINT or SIGUSR1. The first one lets
// the step end and a checkpoint be written; a second SIGTERM or SIGINT ends the process at once.
#pragma once

namespace emo {

// From here on the first SIGTERM, SIGINT or SIGUSR1 only sets stop_requested(); a second one ends
// the process, unless it is SIGUSR1. Call once, on the thread that trains.
void watch_stop_signals();
// Whether this rank has seen one since. Ranks can differ: agree before acting on it.
bool stop_requested();

}  // namespace emo
