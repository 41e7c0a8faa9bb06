#include "table.hpp"

#include <algorithm>
#include <bit>
#include <chrono>
#include <iterator>
#include <set>
#include <stdexcept>

#include "subvalues.hpp"

namespace tilesmith {
namespace {

using Poly = Terms::Poly;

struct Value {
    Poly poly = 0;
    Dims dims = 0;   // in order, unless dimensions are named
    Bases bases = 0; // without order
};

Bases bases_of(Dims dims) {
    Bases bases = 0;
    for (int i = 0; i < kRank; ++i)
        if (dim(dims, i)) bases |= bit(dim(dims, i));
    return bases;
}

[[noreturn]] void refuse(std::size_t node, const std::string &why) {
    throw std::invalid_argument("node " + std::to_string(node) + ": " + why);
}

Labels labels_of(const Program &program, Dims dims) {
    Labels labels;
    for (int i = kRank - 1; i >= 0; --i) {
        const Base base = dim(dims, i);
        for (int part = 0; base && part < kParts; ++part)
            if (program.parts[base] >> part & 1) labels.push_back(label(base, part));
    }
    return labels;
}

// The value of every node as a term.
class Evaluation {
  public:
    Evaluation(const Program &program, Terms &terms) : program_(program), terms_(terms) { validate(); }

    std::vector<Value> run() {
        for (const Node &node : program_.nodes) values_.push_back(evaluate(node));
        return std::move(values_);
    }

    Value input(std::size_t place) {
        const Input &input = program_.inputs[place];
        const Poly made = terms_.variable(static_cast<std::uint32_t>(input.tensor), labels_of(program_, input.dims));
        return {made, program_.named ? 0 : input.dims, bases_of(input.dims)};
    }

    std::optional<Poly> apply(const Function &function, Poly p) {
        switch (function.fn) {
        case Fn::exp: return terms_.exp(p);
        case Fn::square: return terms_.square(p);
        case Fn::sqrt: return terms_.sqrt(p);
        case Fn::rsqrt: return terms_.inverse(terms_.sqrt(p));
        case Fn::reciprocal: return terms_.inverse(p);
        case Fn::scale: return terms_.mul(p, constant(function.id));
        case Fn::shift: return terms_.add(p, constant(function.id));
        case Fn::rms_norm: {
            auto sum = sum_all(function.base, terms_.square(p));
            if (!sum) return std::nullopt;
            if (function.id >= 0) sum = terms_.mul(*sum, constant(function.id));
            if (function.eps >= 0) sum = terms_.add(*sum, constant(function.eps));
            return terms_.mul(p, terms_.inverse(terms_.sqrt(*sum)));
        }
        case Fn::opaque: break;
        }
        return terms_.opaque(Terms::kOpaque + static_cast<std::uint32_t>(function.id), p);
    }

    std::optional<Poly> sum(Base base, unsigned parts, Poly p) {
        std::optional<Poly> sum = p;
        for (int part = 0; part < kParts && sum; ++part)
            if (parts >> part & 1) sum = terms_.sum(label(base, part), *sum);
        return sum;
    }

    Terms::Renaming naming(Base from, Base to) const {
        Terms::Renaming names;
        for (int part = 0; part < kParts; ++part)
            if (program_.parts[from] >> part & 1) names.emplace_back(label(from, part), label(to, part));
        return names;
    }

  private:
    Poly constant(int id) { return terms_.variable(Terms::kConstant + static_cast<std::uint32_t>(id), {}); }
    std::optional<Poly> sum_all(Base base, Poly p) { return sum(base, program_.parts[base], p); }

    void validate() const {
        if (program_.bases() > kMaxBases)
            throw std::invalid_argument("it has " + std::to_string(program_.bases()) + " distinct dimensions, more than " +
                                        std::to_string(kMaxBases));
        const auto known = [&](Base base) { return base <= program_.bases(); };
        for (std::size_t base = 1; base < program_.parts.size(); ++base)
            if (!(program_.parts[base] & kInBlock) || program_.parts[base] > 7)
                throw std::invalid_argument("dimension " + std::to_string(base) + " has no part in the block");
        for (std::size_t place = 0; place < program_.inputs.size(); ++place)
            for (int i = 0; i < kRank; ++i) {
                const Base base = dim(program_.inputs[place].dims, i);
                if (!known(base) || (base && find_dim(program_.inputs[place].dims, base) != i))
                    throw std::invalid_argument("input " + std::to_string(place) + " has a dimension that is unknown or "
                                                "stands twice");
            }
        for (const Function &function : program_.functions)
            if (!known(function.base) || (function.fn == Fn::rms_norm) != (function.base != 0))
                throw std::invalid_argument("a function has no dimension, or has one without need");
        for (const auto &[from, to] : program_.aliases)
            if (!from || !to || !known(from) || !known(to) || program_.parts[from] != program_.parts[to])
                throw std::invalid_argument("an alias joins dimensions that are unknown or of different parts");
    }

    const Value &operand(int place) const {
        if (place < 0 || static_cast<std::size_t>(place) >= values_.size())
            refuse(values_.size(), "operand " + std::to_string(place) + " is not made before it");
        return values_[static_cast<std::size_t>(place)];
    }

    Value evaluate(const Node &node) {
        const std::size_t here = values_.size();
        if (node.term == Term::input) {
            if (node.a < 0 || static_cast<std::size_t>(node.a) >= program_.inputs.size()) refuse(here, "no such input");
            return input(static_cast<std::size_t>(node.a));
        }
        const Value x = operand(node.a);
        switch (node.term) {
        case Term::apply: {
            if (node.b < 0 || static_cast<std::size_t>(node.b) >= program_.functions.size()) refuse(here, "no such function");
            const auto made = apply(program_.functions[static_cast<std::size_t>(node.b)], x.poly);
            if (!made) refuse(here, "it normalises over a dimension that its operand does not have");
            return {*made, x.dims, x.bases};
        }
        case Term::sum: {
            const Base base = node.b >= 0 && node.b < kRank ? dim(x.dims, node.b) : Base{0};
            const Bases over = program_.named ? node.over : bit(base) & ~Bases{1};
            return {sum_over(over, x), with_dim(x.dims, node.b, 0), x.bases & ~over};
        }
        case Term::permute: {
            Dims dims = 0;
            for (int i = 0; i < kRank; ++i) dims = with_dim(dims, i, dim(x.dims, std::min(node.b >> (3 * i) & 7, kRank - 1)));
            return {x.poly, dims, x.bases};
        }
        case Term::rename: return rename(node, x);
        case Term::matmul: return matmul(x, operand(node.b), node.over);
        case Term::add:
        case Term::sub:
        case Term::mul:
        case Term::div: return elementwise(node.term, x, operand(node.b));
        case Term::input: break;
        }
        refuse(here, "no such operator");
    }

    Value elementwise(Term term, const Value &x, const Value &y) {
        const Poly made = term == Term::add   ? terms_.add(x.poly, y.poly)
                          : term == Term::sub ? terms_.add(x.poly, terms_.negative(y.poly))
                          : term == Term::mul ? terms_.mul(x.poly, y.poly)
                                              : terms_.mul(x.poly, terms_.inverse(y.poly));
        return {made, joined(x.dims, y.dims), x.bases | y.bases};
    }

    Dims joined(Dims x, Dims y) const {
        Dims dims = 0;
        for (int i = 0; i < kRank; ++i) {
            const Base a = dim(x, i), b = dim(y, i);
            if (a && b && a != b) refuse(values_.size(), "its operands have different names for one dimension");
            if ((a | b) && find_dim(dims, a | b) >= 0) refuse(values_.size(), "its operands have one name for two dimensions");
            dims = with_dim(dims, i, a | b);
        }
        return dims;
    }

    Value matmul(const Value &x, const Value &y, Bases over) {
        if (!program_.named) {
            if (!dim(x.dims, 0) || dim(y.dims, 1) != dim(x.dims, 0))
                refuse(values_.size(), "its operands have different inner dimensions");
            over = bit(dim(x.dims, 0));
        }
        const Value product{terms_.mul(x.poly, y.poly), 0, x.bases | y.bases};
        const Dims dims = program_.named ? 0 : joined(with_dim(x.dims, 0, 0), with_dim(y.dims, 1, 0));
        return {sum_over(over, product), dims, product.bases & ~over};
    }

    Poly sum_over(Bases over, const Value &x) {
        std::optional<Poly> made = x.poly;
        for (int b = 1; b <= program_.bases() && made; ++b)
            if (over & bit(static_cast<Base>(b))) made = sum_all(static_cast<Base>(b), *made);
        if (!over || (over & ~x.bases) || !made) refuse(values_.size(), "it sums a dimension that a term of its operand lacks");
        return *made;
    }

    Value rename(const Node &node, const Value &x) {
        const Base from = static_cast<Base>(node.b >> 8), to = static_cast<Base>(node.b & 0xff);
        const auto known = [&](Base base) { return base && base <= program_.bases(); };
        if (!known(from) || !known(to) || !(x.bases & bit(from)) || (x.bases & bit(to)) || program_.parts[from] != program_.parts[to])
            refuse(values_.size(), "it renames a dimension that its operand lacks, or to one that it has");
        const Dims dims = program_.named ? 0 : with_dim(x.dims, find_dim(x.dims, from), to);
        return {terms_.rename(x.poly, naming(from, to)), dims, (x.bases & ~bit(from)) | bit(to)};
    }

    const Program &program_;
    Terms &terms_;
    std::vector<Value> values_;
};

class Builder {
  public:
    Builder(const Program &program, const TableLimits &limits)
        : program_(program), limits_(limits), terms_(limits.terms), evaluation_(program, terms_) {}

    Table run() {
        const auto start = std::chrono::steady_clock::now();
        try {
            build();
        } catch (const Overflow &overflow) {
            table_ = Table{};
            table_.incomplete = overflow.what();
        }
        table_.terms = terms_.size();
        table_.index();
        table_.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
        return std::move(table_);
    }

  private:
    void build() {
        find_groups();
        for (const std::vector<Base> &group : square_groups()) terms_.exchange(group);
        const std::vector<Value> values = evaluation_.run();
        if (program_.outputs.empty()) throw std::invalid_argument("the program has no output");
        std::vector<Poly> targets;
        for (const int output : program_.outputs) {
            if (output < 0 || static_cast<std::size_t>(output) >= values.size())
                throw std::invalid_argument("output " + std::to_string(output) + " is no node");
            targets.push_back(values[static_cast<std::size_t>(output)].poly);
        }
        for (const Value &value : values) table_.rank = std::max(table_.rank, __builtin_popcount(value.bases));

        // What a matmul multiplies before it sums has one dimension more than a tensor; nothing has two.
        for (const Poly p : sub_values(terms_, targets, square_groups(), limits_.classes, limits_.stopped))
            if (in_block(free_of(p)) <= table_.rank + 1) classes_.push_back(p);
        for (std::size_t i = 0; i < classes_.size(); ++i) {
            bool fresh = false;
            by_value_.at(terms_.value(classes_[i]), fresh) = static_cast<Class>(i);
            if (!fresh) throw Overflow("two values of the table have one fingerprint");
            sieve_[terms_.value(classes_[i]) >> kSieveShift] = true;
            table_.free.push_back(free_of(classes_[i]));
            shapes_.insert(table_.free.back());
            if (limits_.show) table_.shown.push_back(terms_.show(classes_[i]));
        }
        binary();
        unary();
        std::ranges::sort(table_.rows);

        name_views();
        for (std::size_t i = 0; i < program_.inputs.size(); ++i) find_input(evaluation_.input(i).poly);
        for (const Value &value : values) table_.nodes.push_back(known(value.poly));
        for (const int output : program_.outputs) {
            table_.outputs.push_back(table_.nodes[static_cast<std::size_t>(output)]);
            table_.output_dims.push_back(values[static_cast<std::size_t>(output)].dims);
            if (table_.outputs.back() == kNoClass) throw Overflow("an output has more dimensions than a tensor can have");
        }
    }

    void find_groups() {
        for (const auto &[a, b] : program_.aliases) {
            const auto has = [](Base base) { return [base](const auto &group) { return contains_base(group, base); }; };
            auto group = std::ranges::find_if(groups_, has(a));
            if (group == groups_.end()) group = std::ranges::find_if(groups_, has(b));
            if (group == groups_.end()) group = groups_.insert(groups_.end(), std::vector<Base>{});
            for (const Base base : {a, b})
                if (!contains_base(*group, base)) group->push_back(base);
            std::ranges::sort(*group);
        }
    }

    // Groups of names of which some input has two.
    Exchangeable square_groups() const {
        Exchangeable squares = groups_;
        std::erase_if(squares, [&](const std::vector<Base> &group) {
            return std::ranges::none_of(program_.inputs, [&](const Input &input) {
                int named = 0;
                for (const Base base : group) named += find_dim(input.dims, base) >= 0;
                return named > 1;
            });
        });
        return squares;
    }

    // Every way to exchange names of one extent among themselves, but for the one that changes nothing.
    void name_views() {
        std::vector<std::vector<Base>> order = groups_;
        while (std::ranges::any_of(order, [](auto &group) { return std::ranges::next_permutation(group).found; })) {
            auto &renaming = table_.renamings.emplace_back();
            Terms::Renaming labels;
            for (std::size_t g = 0; g < groups_.size(); ++g)
                for (std::size_t i = 0; i < groups_[g].size(); ++i) {
                    if (groups_[g][i] == order[g][i]) continue;
                    renaming.emplace_back(groups_[g][i], order[g][i]);
                    std::ranges::copy(evaluation_.naming(groups_[g][i], order[g][i]), std::back_inserter(labels));
                }
            if (table_.renamings.size() > kMostRenamings) throw Overflow("one extent has too many names");
            std::ranges::sort(labels);
            auto &views = table_.views.emplace_back();
            for (const Poly p : classes_) views.push_back(known(terms_.rename(p, labels)));
            labels_.push_back(std::move(labels));
        }
    }

    void find_input(Poly p) {
        table_.inputs.push_back(known(p));
        table_.input_names.push_back(-1);
        for (std::size_t r = 0; r < labels_.size() && table_.inputs.back() == kNoClass; ++r) {
            table_.inputs.back() = known(terms_.rename(p, labels_[r]));
            table_.input_names.back() = static_cast<int>(r);
        }
    }

    static bool contains_base(const std::vector<Base> &group, Base base) {
        return std::ranges::find(group, base) != group.end();
    }

    Free free_of(Poly p) const {
        Free free = 0;
        for (const Label l : terms_.free_of(p))
            free |= free_parts(static_cast<Base>(l / kParts + 1), 1u << (l % kParts));
        return free;
    }

    static int in_block(Free free) { return __builtin_popcountll(free & kEachInBlock); }

    Class known(Poly p) const {
        const Class *found = by_value_.find(terms_.value(p));
        return found && classes_[*found] == p ? *found : kNoClass;
    }

    // Whether a class may have this value: asked millions of times, so that it stays within the nearest cache.
    bool maybe(std::uint64_t value) const { return sieve_[value >> kSieveShift] && by_value_.find(value); }

    void put(Rule rule, std::size_t a, std::size_t b, Poly result) {
        if (const Class c = known(result); c != kNoClass)
            table_.rows.push_back({rule, static_cast<Class>(a), static_cast<std::uint16_t>(b), c});
    }

    // Terms are only made where the values of their operands, joined, are the value of a class.
    void binary() {
        const std::uint64_t minus_one = terms_.value(terms_.variable(Terms::kMinusOne, {}));
        const bool subtracts =
            std::ranges::any_of(program_.nodes, [](const Node &node) { return node.term == Term::sub; });
        // Quotients have an inverse that is known from the target.
        std::vector<std::pair<std::size_t, Poly>> inverses;
        std::vector<std::uint64_t> values;
        for (std::size_t i = 0; i < classes_.size(); ++i) {
            values.push_back(terms_.value(classes_[i]));
            if (terms_.knows(Terms::kInverse, classes_[i])) inverses.emplace_back(i, terms_.inverse(classes_[i]));
        }
        for (std::size_t i = 0; i < classes_.size(); ++i) {
            if (limits_.stopped()) throw Overflow("the time for its table ran out");
            for (std::size_t j = i; j < classes_.size(); ++j) {
                if (maybe(Terms::sum_of_values(values[i], values[j]))) put(Rule::add, i, j, terms_.add(classes_[i], classes_[j]));
                if (maybe(Terms::product_of_values(values[i], values[j]))) put(Rule::mul, i, j, terms_.mul(classes_[i], classes_[j]));
            }
            for (const auto &[j, inverse] : inverses)
                if (maybe(Terms::product_of_values(values[i], terms_.value(inverse)))) put(Rule::div, i, j, terms_.mul(classes_[i], inverse));
            for (std::size_t j = 0; subtracts && j < classes_.size(); ++j)
                if (maybe(Terms::sum_of_values(values[i], Terms::product_of_values(values[j], minus_one))))
                    put(Rule::sub, i, j, terms_.add(classes_[i], terms_.negative(classes_[j])));
        }
    }

    void unary() {
        terms_.settle();
        for (std::size_t i = 0; i < classes_.size(); ++i) {
            if (limits_.stopped()) throw Overflow("the time for its table ran out");
            for (std::size_t f = 0; f < program_.functions.size(); ++f)
                put_made(Rule::apply, i, f, [&] {
                    const bool hope = possible(program_.functions[f], classes_[i]);
                    return hope ? evaluation_.apply(program_.functions[f], classes_[i]) : std::nullopt;
                });
            for (int b = 1; b <= program_.bases(); ++b) {
                const Base base = static_cast<Base>(b);
                const unsigned all = parts_of(table_.free[i], base);
                for (unsigned parts = all; parts; parts = (parts - 1) & all)
                    if (shapes_.contains(table_.free[i] & ~free_parts(base, parts))) put_made(Rule::sum, i, static_cast<std::size_t>(8 * b) + parts,
                             [&] { return evaluation_.sum(base, parts, classes_[i]); });
            }
        }
    }

    // Whether a function's result may be a class: then all that it is made of is known from the target.
    bool possible(const Function &function, Poly p) const {
        switch (function.fn) {
        case Fn::exp: return terms_.knows(Terms::kExp, p);
        case Fn::sqrt:
        case Fn::rsqrt: return terms_.knows(Terms::kSqrt, p);
        case Fn::reciprocal: return terms_.knows(Terms::kInverse, p);
        case Fn::opaque: return terms_.knows(Terms::kOpaque + static_cast<std::uint32_t>(function.id), p);
        case Fn::square:
        case Fn::rms_norm:
            return terms_.monos(p).size() > 1 ? terms_.knows(Terms::kSquare, p) : maybe(Terms::product_of_values(terms_.value(p), terms_.value(p)));
        case Fn::scale:
        case Fn::shift: break;
        }
        return true;
    }

    // What is a class was made before: its sums bound no more copies than any then, so that an overflow is no loss.
    template <typename Make> void put_made(Rule rule, std::size_t a, std::size_t b, const Make &make) {
        std::optional<Poly> made;
        try {
            made = make();
        } catch (const Overflow &) {
            if (terms_.size() > limits_.terms) throw;
        }
        if (made) put(rule, a, b, *made);
    }

    const Program &program_;
    const TableLimits &limits_;
    Terms terms_;
    Evaluation evaluation_;
    std::vector<Poly> classes_;
    std::vector<std::vector<Base>> groups_; // of names of one extent
    std::vector<Terms::Renaming> labels_;   // of every renaming
    std::set<Free> shapes_; // of classes
    FlatMap<Class> by_value_;
    static constexpr std::size_t kMostRenamings = 720;
    static constexpr int kSieveShift = 47;
    std::vector<bool> sieve_ = std::vector<bool>(std::size_t{1} << (64 - kSieveShift));
    Table table_;
};

} // namespace

void Table::index() {
    std::size_t slots = 16;
    while (slots < rows.size() * 3) slots *= 2;
    slots_.assign(slots, kNoSlot);
    mask_ = slots - 1;
    shift_ = 64 - std::countr_zero(slots);
    for (const Row &row : rows) {
        const std::uint64_t key = probe_key(row.rule, row.a, row.b);
        std::size_t i = place(key);
        while (slots_[i] != kNoSlot) i = (i + 1) & mask_;
        slots_[i] = key << 16 | row.result;
    }
}

Table build_table(const Program &program, const TableLimits &limits) { return Builder(program, limits).run(); }

} // namespace tilesmith
