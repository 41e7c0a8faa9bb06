#include "oracle_degrees.hpp"

#include <algorithm>

namespace tilesmith {
namespace {

// The same program with one more term made before its own, so that all of its terms are numbered differently.
Program renumbered(const Program &program, int constant) {
    Program shifted = program;
    shifted.functions.push_back({Fn::scale, static_cast<std::int16_t>(constant), -1, 0});
    shifted.nodes = {{Term::input, 0, 0, 0}, {Term::apply, 0, static_cast<int>(program.functions.size()), 0}};
    for (Node node : program.nodes) {
        if (node.term != Term::input) node.a += 2;
        if (node.term != Term::input && node.term != Term::apply) node.b += 2;
        shifted.nodes.push_back(node);
    }
    for (int &output : shifted.outputs) output += 2;
    return shifted;
}

// A degree of 4096 is twelve factors of one constant, and a fingerprint is a product modulo a power of two: where the
// constant's has many factors of two, that of the product vanishes. It depends on how terms are numbered.
Table build_apart(Program program, const TableLimits &limits) {
    constexpr int kTries = 16;
    int constant = 0;
    for (const Function &function : program.functions) constant = std::max(constant, function.id + 1);
    Table table = build_table(program, limits);
    for (int i = 1; i < kTries && table.incomplete.ends_with("have one fingerprint"); ++i) {
        program = renumbered(program, constant++);
        table = build_table(program, limits);
    }
    return table;
}

} // namespace

DegreeTable::DegreeTable(const DegreeProgram &program, const TableLimits &limits, std::span<const std::int64_t> degrees)
    : table_(build_apart(program.program, limits)), primes_(program.primes) {
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
    all.erase(std::unique(all.begin(), all.end()), all.end());
    return all;
}

} // namespace tilesmith
