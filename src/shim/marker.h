// Markers: words that the GPU writes into a lane in stream order (cuStreamWriteValue64, no memory
// barrier, into the slot's pages registered as host memory). Where the device or its driver has no
// such writes, an event stands for each and the shim writes the word when it looks. Any thread that
// is inside the lane.
#pragma once

#include "src/shim/lane.h"

namespace divvy::shim {

// Puts one into `stream` (the lane's; of a shared lane, the operation's own): all that has returned
// is before it. `probe` (or -1) ends with it. False: another thread is at it and will put a done
// marker for this one too, or it cannot be put; the probe is given back then.
bool PutMarker(DeviceMeter& meter, LaneState& lane, CUstream stream, MarkerKind kind,
               int probe) noexcept;

// May this thread put a marker into the lane now, without an operation of its own beside it?
bool MayMark(DeviceMeter& meter, const LaneState& lane) noexcept;
// Is anything in flight on other lanes? What orders them must not come between then.
bool OthersBusy(DeviceMeter& meter, const LaneState& lane) noexcept;

// A context in which the pages were registered is gone.
void MarkersLoseContext(uint32_t context) noexcept;

}  // namespace divvy::shim
