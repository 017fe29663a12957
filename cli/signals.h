// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace mstpp::cli {

// From here on an interrupt (Ctrl-C), a termination or a hang-up ends the process at once, unless a
// file is being written: then as soon as that is over, so that nothing half-done stays behind. A
// second signal does not wait. To be called before any other thread exists.
void HandleSignals();

// While one of these lives, the first signal waits. Once a signal waits, making another one never
// returns: no new file is begun.
class WritingFile {
 public:
  WritingFile();
  ~WritingFile();
  WritingFile(const WritingFile&) = delete;
  WritingFile& operator=(const WritingFile&) = delete;
};

// Whether a signal waits for a file: one that takes long to write should be given up.
bool StopRequested();

}  // namespace mstpp::cli
