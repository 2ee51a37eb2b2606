// A driver whose calls do next to nothing, so that what is measured beside it is the shim.
#pragma once

namespace divvy::shim::testing {

void InstallIdleDriver();
// Its device writes a marker when so many (at most 15) have been queued after it: 0 is a queue that
// always runs dry, two or three are a device that is kept busy. Operations take 50 us.
void SetMarkersBehind(unsigned markers);
// Never gives an address out again; otherwise the one freed last, as drivers do.
void SetAlwaysFresh(bool fresh);

}  // namespace divvy::shim::testing
