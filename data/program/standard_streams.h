// Standard input, output and error, as a program may find them closed.
#pragma once

namespace emo {

// Opens descriptors 0 to 2 on /dev/null where they are closed, so that no file of ours becomes one
// of them and takes what is printed. Reading and writing there fails as it would have. REQUIRES:
// nothing was opened before; call it first.
void keep_standard_descriptors();

}  // namespace emo
