// Whether a table tells the truth: every class gets numbers by the first way in which it can be computed from the
// inputs, and every other way must give the same ones.
#pragma once

#include <string>

#include "../table.hpp"

namespace tilesmith::test {

struct Audit {
    std::size_t rows = 0; // whose operands can be computed
    std::size_t wrong = 0;
    std::string first; // the first wrong one
};

Audit audit(const Program &program, const Table &table, unsigned seed);

} // namespace tilesmith::test
