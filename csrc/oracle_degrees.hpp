// The table of a target under the published abstraction: a sum keeps its degree, the number of its terms, and forgets
// which index it runs over (Wu et al., Mirage: A Multi-Level Superoptimizer for Tensor Programs, section 4.3).
//
// There, a sum of degree n commutes with products, quotients, additions and other sums exactly as a constant factor
// does, and sums of degrees m and n make one of degree m·n. So it is written as a product with one constant for every
// prime factor of n, and the table is built as that of a program without dimensions. Degrees of any extent fall apart
// into any of their factors that way: 11008 = 2^8·43 into loops of 4, 16 or 64.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "hash.hpp"
#include "table.hpp"

namespace tilesmith {

struct DegreeProgram {
    Program program;                  // named, without dimensions
    std::vector<std::int64_t> primes; // function i of the program is a sum of degree primes[i]
};

class DegreeTable {
  public:
    // Raises what build_table raises. `degrees` are those that will be asked for most.
    DegreeTable(const DegreeProgram &program, const TableLimits &limits, std::span<const std::int64_t> degrees);

    const Table &table() const { return table_; }
    Class apply(Class c, int function) const {
        return c == kNoClass ? c : table_.probe(Rule::apply, c, static_cast<std::uint16_t>(function));
    }
    Class join(Rule rule, Class a, Class b) const {
        return a == kNoClass || b == kNoClass ? kNoClass : table_.probe(rule, a, b);
    }
    // Of a sum with so many terms.
    Class sum(Class c, std::int64_t degree) const {
        if (degree == 1 || c == kNoClass) return c;
        const std::uint32_t *row = rows_.find(static_cast<std::uint64_t>(degree));
        return row ? sums_[*row * table_.classes() + c] : factored(c, degree);
    }

  private:
    Class factored(Class c, std::int64_t degree) const;

    Table table_;
    std::vector<std::int64_t> primes_;
    FlatMap<std::uint32_t> rows_;
    std::vector<Class> sums_;
};

// Every divisor of every number, each once.
std::vector<std::int64_t> divisors(std::span<const std::int64_t> numbers);

} // namespace tilesmith
