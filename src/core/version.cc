// SPDX-License-Identifier: Apache-2.0
#include "mstpp/mstpp.h"

namespace mstpp {

const char* Version() { return MSTPP_VERSION; }

}  // namespace mstpp
