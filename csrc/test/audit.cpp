#include "audit.hpp"

#include <cmath>
#include <optional>
#include <random>

namespace tilesmith::test {
namespace {

// Labels have different small extents, so that sums over different ones differ.
constexpr std::size_t extent(int place) { return static_cast<std::size_t>(2 + (place * 7 + place / 5) % 2); }

// An array over the labels of its class, the lowest one fastest.
struct Array {
    std::vector<int> labels;
    std::vector<double> data;
};

std::vector<int> labels_of(Free free) {
    std::vector<int> labels;
    for (int l = 0; l < kMaxBases * kParts; ++l)
        if (free >> l & 1) labels.push_back(l);
    return labels;
}

std::size_t size_of(const std::vector<int> &labels) {
    std::size_t size = 1;
    for (const int l : labels) size *= extent(l);
    return size;
}

// Where an element of one array lies in another, whose labels are among the first one's or not.
class Places {
  public:
    Places(const std::vector<int> &all, const std::vector<int> &some) {
        for (const int l : all) {
            extents_.push_back(extent(l));
            std::size_t stride = 0, step = 1;
            for (const int other : some) {
                if (other == l) stride = step;
                step *= extent(other);
            }
            strides_.push_back(stride);
        }
    }
    std::size_t operator()(std::size_t place) const {
        std::size_t at = 0;
        for (std::size_t i = 0; i < extents_.size(); ++i) {
            at += place % extents_[i] * strides_[i];
            place /= extents_[i];
        }
        return at;
    }

  private:
    std::vector<std::size_t> extents_, strides_;
};

double opaque(int id, double x) { return x / (1 + std::exp(-x)) + 0.1 * id * x * x; }
double constant(int id) { return 0.37 + 0.21 * id; }

class Auditor {
  public:
    Auditor(const Program &program, const Table &table, unsigned seed)
        : program_(program), table_(table), random_(seed), values_(table.classes()) {}

    Audit run() {
        // Two views of one tensor are different variables to the axioms, and so here.
        for (std::size_t i = 0; i < program_.inputs.size(); ++i) {
            const Class c = table_.inputs[i];
            if (c == kNoClass || values_[c]) continue;
            values_[c] = input(program_.inputs[i]);
        }
        for (bool more = true; more;) {
            more = false;
            for (const Row &row : table_.rows) {
                if (values_[row.result]) continue;
                values_[row.result] = made(row);
                more |= values_[row.result].has_value();
            }
        }
        Audit audit;
        for (const Row &row : table_.rows) {
            const auto found = made(row);
            if (!found) continue;
            ++audit.rows;
            const Array &known = *values_[row.result];
            double worst = 0, scale = 0;
            for (std::size_t i = 0; i < known.data.size(); ++i) {
                worst = std::max(worst, std::abs(known.data[i] - found->data[i]));
                scale = std::max(scale, std::abs(known.data[i]));
            }
            if (worst <= 1e-9 * scale) continue;
            if (audit.wrong++ == 0)
                audit.first = std::to_string(static_cast<int>(row.rule)) + "(" + std::to_string(row.a) + ", " +
                              std::to_string(row.b) + ") -> " + std::to_string(row.result);
        }
        return audit;
    }

  private:
    Array input(const Input &input) {
        Free free = 0;
        for (int i = 0; i < kRank; ++i)
            if (const Base base = dim(input.dims, i)) free |= free_parts(base, program_.parts[base]);
        const std::vector<int> labels = labels_of(free);
        Array array{labels, std::vector<double>(size_of(labels))};
        std::uniform_real_distribution<double> uniform(0.5, 1.5);
        for (double &x : array.data) x = uniform(random_);
        return array;
    }

    std::optional<Array> made(const Row &row) {
        if (!values_[row.a]) return std::nullopt;
        const Array &x = *values_[row.a];
        const std::vector<int> labels = labels_of(table_.free[row.result]);
        Array result{labels, std::vector<double>(size_of(labels), 0)};
        if (row.rule < Rule::apply) {
            if (!values_[row.b]) return std::nullopt;
            const Array &y = *values_[row.b];
            const Places in_x(labels, x.labels), in_y(labels, y.labels);
            for (std::size_t i = 0; i < result.data.size(); ++i) {
                const double a = x.data[in_x(i)], b = y.data[in_y(i)];
                result.data[i] = row.rule == Rule::add ? a + b : row.rule == Rule::sub ? a - b : row.rule == Rule::mul ? a * b : a / b;
            }
            return result;
        }
        const Places in_result(x.labels, labels);
        if (row.rule == Rule::sum) {
            for (std::size_t i = 0; i < x.data.size(); ++i) result.data[in_result(i)] += x.data[i];
            return result;
        }
        const Function &f = program_.functions[row.b];
        if (f.fn == Fn::rms_norm) {
            std::vector<int> rest;
            for (const int l : x.labels)
                if (l / kParts + 1 != f.base) rest.push_back(l);
            std::vector<double> squares(size_of(rest), 0);
            const Places in_rest(x.labels, rest);
            for (std::size_t i = 0; i < x.data.size(); ++i) squares[in_rest(i)] += x.data[i] * x.data[i];
            for (std::size_t i = 0; i < x.data.size(); ++i) {
                double mean = squares[in_rest(i)] * (f.id < 0 ? 1 : constant(f.id));
                mean += f.eps < 0 ? 0 : constant(f.eps);
                result.data[i] = x.data[i] / std::sqrt(mean);
            }
            return result;
        }
        for (std::size_t i = 0; i < x.data.size(); ++i) result.data[i] = applied(f, x.data[i]);
        return result;
    }

    static double applied(const Function &f, double x) {
        switch (f.fn) {
        case Fn::exp: return std::exp(0.01 * x);
        case Fn::square: return x * x;
        case Fn::sqrt: return std::sqrt(x);
        case Fn::rsqrt: return 1 / std::sqrt(x);
        case Fn::reciprocal: return 1 / x;
        case Fn::scale: return x * constant(f.id);
        case Fn::shift: return x + constant(f.id);
        default: return opaque(f.id, 0.01 * x);
        }
    }

    const Program &program_;
    const Table &table_;
    std::mt19937_64 random_;
    std::vector<std::optional<Array>> values_;
};

} // namespace

Audit audit(const Program &program, const Table &table, unsigned seed) { return Auditor(program, table, seed).run(); }

} // namespace tilesmith::test
