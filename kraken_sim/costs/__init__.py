"""Pure cost formulas: shapes and machine constants in, seconds out. No simulation state here."""
