// A request to stop, from a scheduler or a person: SIGTERM, SIGINT or SIGUSR1. The first one lets
// the step end and a checkpoint be written; a second SIGTERM or SIGINT ends the process at once.
#pragma once

namespace emo {

// Call on the thread that trains.
void watch_stop_signals();
bool stop_requested();

}  // namespace emo
