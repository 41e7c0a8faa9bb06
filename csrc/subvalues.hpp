// All values that can occur on the way to a target: its sub-values under the axioms, found from the target down.
#pragma once

#include <functional>
#include <vector>

#include "terms.hpp"

namespace tilesmith {

// Bases that have one extent, where a tensor has two of them: a square one. What a sum binds under one of their names may
// have been any of them.
using Exchangeable = std::vector<std::vector<Base>>;

// The sub-values of `targets`, each once, every free label with copy 0, in order of their numbers. The work-list empties
// by itself, since what a value is made of is smaller than it. Raises Overflow where there are too many, or where
// `stopped` says so.
std::vector<Terms::Poly> sub_values(Terms &terms, const std::vector<Terms::Poly> &targets, const Exchangeable &exchangeable,
                                    std::size_t limit, const std::function<bool()> &stopped);

} // namespace tilesmith
