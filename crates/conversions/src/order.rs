//! An order: the lives of its goals, and how a word finds the goals it is about.
//!
//! A word that names a goal, or whose token's offer has only one, is about this goal. Without a goal, what takes the order
//! away is about all of its goals, also those that come later; anything else is about the only goal the order has.

use std::collections::BTreeMap;

use domain::event::{Postback, Reason, Status};
use serde::{Deserialize, Serialize};

use crate::life::{Life, Standing, Word};

/// What is kept of an order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Order {
    /// How many words were believed.
    pub(crate) words: u64,
    /// By the goal's name. Names are the catalog's, which bounds them.
    goals: BTreeMap<String, Life>,
    /// Words without a goal that take the order away.
    all: Life,
    /// Other words without a goal.
    any: Life,
}

impl Order {
    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self, String> {
        postcard::from_bytes(bytes).map_err(|error| format!("the summary of an order: {error}"))
    }

    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        postcard::to_stdvec(self).expect("an order has no type postcard refuses")
    }

    /// Folds a word in that is believed.
    pub(crate) fn hear(&mut self, postback: &Postback, word: &Word) {
        self.words += 1;
        if !postback.goal_name.is_empty() {
            let life = self.goals.entry(postback.goal_name.clone()).or_default();
            life.hear(word);
        }
        if !names_goal(postback) {
            let mut word = word.clone();
            word.credit = None;
            if word.takes_back() {
                word.amount = None;
                self.all.hear(&word);
            } else if postback.goal_name.is_empty() {
                self.any.hear(&word);
            }
        }
    }

    /// Where each goal stands.
    pub(crate) fn standings(&self) -> BTreeMap<String, Standing> {
        let standings = self.goals.keys().filter_map(|goal| {
            let standing = self.life(goal)?.standing()?;
            Some((goal.clone(), standing))
        });
        standings.collect()
    }

    fn life(&self, goal: &str) -> Option<Life> {
        let mut life = self.goals.get(goal)?.clone();
        life.join(self.all.clone());
        if self.goals.len() == 1 {
            life.join(self.any.clone());
        }
        Some(life)
    }

    /// The goals a word is about.
    pub(crate) fn concerned(&self, postback: &Postback) -> Vec<String> {
        let takes_back = matches!(postback.status(), Status::Rejected | Status::Reversed);
        if postback.goal_name.is_empty() || takes_back && !names_goal(postback) {
            return self.goals.keys().cloned().collect();
        }
        vec![postback.goal_name.clone()]
    }

    /// Why a word changed nothing.
    pub(crate) fn outcome(&self, postback: &Postback, word: &Word) -> Reason {
        if self.goals.is_empty() {
            return Reason::TokenMissing;
        }
        if postback.goal_name.is_empty() && !word.takes_back() && self.goals.len() > 1 {
            return Reason::GoalAmbiguous;
        }
        let goals = self.concerned(postback);
        let life = goals.first().and_then(|goal| self.life(goal));
        life.map_or(Reason::Repeat, |life| life.outcome(word))
    }
}

/// Whether the sender named a goal.
fn names_goal(postback: &Postback) -> bool {
    !postback.goal_text.is_empty()
}
