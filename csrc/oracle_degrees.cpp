#include "oracle_degrees.hpp"

#include <algorithm>

namespace tilesmith {

DegreeTable::DegreeTable(const DegreeProgram &program, const TableLimits &limits, std::span<const std::int64_t> degrees)
    : table_(build_table(program.program, limits)), primes_(program.primes) {
    for (const std::int64_t degree : degrees) {
        bool fresh = false;
        std::uint32_t &row = rows_.at(static_cast<std::uint64_t>(degree), fresh);
        if (!fresh) continue;
        row = static_cast<std::uint32_t>(rows_.size() - 1);
        for (std::size_t c = 0; c < table_.classes(); ++c) sums_.push_back(factored(static_cast<Class>(c), degree));
    }
}

// One factor after another: what is left out on the way is a sub-value of what is reached.
Class DegreeTable::factored(Class c, std::int64_t degree) const {
    for (std::size_t i = 0; i < primes_.size() && c != kNoClass; ++i)
        for (; degree % primes_[i] == 0 && c != kNoClass; degree /= primes_[i]) c = apply(c, static_cast<int>(i));
    return degree == 1 ? c : kNoClass;
}

std::vector<std::int64_t> divisors(std::span<const std::int64_t> numbers) {
    std::vector<std::int64_t> all;
    for (const std::int64_t n : numbers)
        for (std::int64_t d = 1; d * d <= n; ++d)
            if (n % d == 0) {
                all.push_back(d);
                all.push_back(n / d);
            }
    std::ranges::sort(all);
    all.erase(std::ranges::unique(all).begin(), all.end());
    return all;
}

} // namespace tilesmith
